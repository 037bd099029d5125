"""Draws the people of the synthetic street: shaded solids with a depth buffer, seen from any side.

Image coordinates are u to the right, v down and w towards the viewer.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from data_prep.synthetic.people import Paint, Part, Person, body

PIXELS_PER_METRE = 72
MARGIN = 0.08  # meters around the figure
AMBIENT = 0.55


class Sprite(NamedTuple):
    """A drawn figure.

    Attributes:
      rgb: [h, w, 3] float32, 0..1, black outside the figure.
      alpha: [h, w] float32, 0 or 1.
      foot: column and row of the point on the ground between the feet.
    """

    rgb: np.ndarray
    alpha: np.ndarray
    foot: tuple[float, float]


class View(NamedTuple):
    """From where and in what light a figure is seen.

    Attributes:
      heading: angle between the walking direction and the direction to the viewer, radians; 0 = walks towards the
        viewer, pi/2 = to the right of the picture.
      pitch: angle by which the camera looks down, radians.
      light: unit vector (u, v, w) towards the light.
    """

    heading: float
    pitch: float
    light: tuple[float, float, float]


def draw(person: Person, phase: float, view: View) -> Sprite:
    """Draws a person at one phase (radians) of the stride, `PIXELS_PER_METRE` large."""
    scale = person.height * PIXELS_PER_METRE
    half = round(0.34 * scale + MARGIN * PIXELS_PER_METRE)
    above, below = round(scale * 1.04 + MARGIN * PIXELS_PER_METRE), round(0.14 * scale)
    surface = _Surface((above + below, 2 * half))
    parts = body(person, phase)
    starts, ends = (_project([getattr(part, end) for part in parts], view, scale, (half, above)) for end in "ab")
    for solid in zip(parts, starts, ends, *_half_widths(parts, view, scale), strict=True):
        surface.add(*solid)
    return Sprite(surface.shade(parts, view), (surface.part >= 0).astype(np.float32), (half, above))


class _Surface:
    """Per pixel the part nearest to the viewer, and where on that part it is."""

    def __init__(self, shape: tuple[int, int]):
        self.depth = np.full(shape, -np.inf, np.float32)
        self.part = np.full(shape, -1, np.int16)
        self.along = np.zeros(shape, np.float32)  # 0 at a .. 1 at b
        self.normal = np.zeros((2, *shape), np.float32)  # its u and v
        self.axes: list[tuple[float, float]] = []  # per part the direction from a to b in the picture

    def add(self, part: Part, a: list[float], b: list[float], wide: list[float], deep: list[float]) -> None:
        """Draws one part where it lies in front of what is there.

        Args:
          part: for the shape of its ends.
          a, b: its ends (u, v, w), pixels.
          wide, deep: its half widths at a and b across the picture and towards the viewer, pixels.
        """
        window, v, u = self._window(a, b, max(wide) + 1)
        du, dv = b[0] - a[0], b[1] - a[1]
        length = max(math.hypot(du, dv), 1e-3)
        free = ((u - a[0]) * du + (v - a[1]) * dv) / length**2
        along = np.minimum(np.maximum(free, 0), 1)
        radius = wide[0] + along * (wide[1] - wide[0])
        normal_u, normal_v = (u - a[0] - along * du) / radius, (v - a[1] - along * dv) / radius
        squared = normal_u**2 + normal_v**2
        depth = a[2] + along * (b[2] - a[2])
        depth += np.sqrt(np.maximum(1 - squared, 0)) * (deep[0] + along * (deep[1] - deep[0]))
        inside = (squared < 1) & (depth > self.depth[window])
        if part.flat:
            inside &= free == along
        self.part[window][inside] = len(self.axes)
        self.axes.append((du / length, dv / length))
        planes = (self.depth, self.along, *self.normal)
        for plane, values in zip(planes, (depth, along, normal_u, normal_v), strict=True):
            plane[window][inside] = values[inside]

    def _window(
        self, a: list[float], b: list[float], reach: float
    ) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
        """The part of the picture within reach of a line, and its rows and columns."""
        rows, columns = (
            slice(max(0, int(min(a[i], b[i]) - reach)), max(0, int(max(a[i], b[i]) + reach) + 1)) for i in (1, 0)
        )
        height, width = self.depth[rows, columns].shape
        v = np.arange(rows.start, rows.start + height, dtype=np.float32)[:, None]
        u = np.arange(columns.start, columns.start + width, dtype=np.float32)[None]
        return (rows, columns), v, u

    def shade(self, parts: list[Part], view: View) -> np.ndarray:
        """[h, w, 3] float32 colors in the view's light."""
        pixels = np.flatnonzero(self.part >= 0)
        pixels = pixels[np.argsort(self.part.ravel()[pixels], kind="stable")]
        along, normal_u, normal_v = self.along.ravel()[pixels], *self.normal.reshape(2, -1)[:, pixels]
        ends = np.searchsorted(self.part.ravel()[pixels], np.arange(len(parts) + 1))
        lit = np.empty((len(pixels), 3), np.float32)
        for part, (du, dv), start, end in zip(parts, self.axes, ends, ends[1:], strict=False):
            some = slice(start, end)
            if part.paint.kind == "plain" and part.paint.strap is None:
                lit[some] = part.paint.first
                continue
            side = np.clip(normal_u[some] * dv - normal_v[some] * du, -1, 1)
            garment = part.span[0] + along[some] * (part.span[1] - part.span[0])
            lit[some] = colors(part.paint, garment, _wrap(np.arcsin(side) - view.heading))
        normal_w = np.sqrt(1 - normal_u**2 - normal_v**2)
        u, v, w = view.light
        light = AMBIENT + (1 - AMBIENT) * np.maximum(normal_u * u + normal_v * v + normal_w * w, 0)
        rgb = np.zeros((*self.part.shape, 3), np.float32)
        rgb.reshape(-1, 3)[pixels] = lit * (light * (0.85 + 0.15 * normal_w))[:, None]
        return rgb


def colors(paint: Paint, along: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Colors of points of a surface.

    Args:
      paint: the surface's colors.
      along: [n] 0 at the garment's top, 1 at its end.
      around: [n] radians from the body's front, positive to its left.

    Returns:
      [n, 3] float32, 0..1.
    """
    rgb = np.where(_second(paint.kind, along, around)[:, None], paint.second, paint.first)
    if paint.strap is not None:
        rgb = np.where(_strap(paint.strap_kind, along, around)[:, None], paint.strap, rgb)
    return rgb.astype(np.float32)


def _second(kind: str, along: np.ndarray, around: np.ndarray) -> np.ndarray:
    front = np.abs(around)
    patterns = {
        "rings": lambda: (along * 8) % 2 > 1.2,
        "bars": lambda: (around * 3.2) % 2 > 1.3,
        "checks": lambda: ((along * 7) % 2 > 1) ^ ((around * 2.5) % 2 > 1),
        "logo": lambda: (front < 0.5) & (np.abs(along - 0.38) < 0.13),
        "back": lambda: (front > 2.5) & (np.abs(along - 0.4) < 0.2),
        "yoke": lambda: along < 0.34,
        "open": lambda: front < 0.38,
        "band": lambda: np.abs(along - 0.5) < 0.12,
        "seam": lambda: np.abs(front - np.pi / 2) < 0.25,
        "fade": lambda: (front < 0.45) & (along > 0.15) & (along < 0.5),
        "hair": lambda: (along < 0.02) | (front > 1.25),
        "cap": lambda: (along < 0.1) | (front > 2.6),
        "bald": lambda: (front > 1.3) & (along > 0.5),
    }
    return patterns[kind]() if kind in patterns else np.zeros(along.shape, bool)


def _strap(kind: str, along: np.ndarray, around: np.ndarray) -> np.ndarray:
    if kind == "backpack":
        return (np.abs(np.abs(around) - 0.75) < 0.14) & (along < 0.62)
    return np.abs(np.sin(around) * 0.55 + along - 0.5) < 0.05


def _project(points: list[np.ndarray], view: View, scale: float, foot: tuple[float, float]) -> list[list[float]]:
    """Points in the body's frame -> (u, v, w) in pixels."""
    x, y, z = np.array(points).T * scale
    sin, cos = math.sin(view.heading), math.cos(view.heading)
    u, w = x * sin + y * cos, x * cos - y * sin
    up = z * math.cos(view.pitch) - w * math.sin(view.pitch)
    return np.stack([foot[0] + u, foot[1] - up, w * math.cos(view.pitch) + z * math.sin(view.pitch)], 1).tolist()


def _half_widths(parts: list[Part], view: View, scale: float) -> tuple[list[list[float]], list[list[float]]]:
    """Half widths of all parts at a and b in pixels: across the picture, and towards the viewer."""
    lateral, depth = (np.array([getattr(part, axis) for part in parts]) * scale for axis in ("lateral", "depth"))
    sin, cos = math.sin(view.heading), math.cos(view.heading)
    return np.hypot(lateral * cos, depth * sin).tolist(), np.hypot(lateral * sin, depth * cos).tolist()


def _wrap(angle: np.ndarray) -> np.ndarray:
    return (angle + np.pi) % (2 * np.pi) - np.pi
