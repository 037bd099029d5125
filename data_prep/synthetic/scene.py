"""The cameras of the synthetic street: what each of them looks at, and how it distorts color, light and detail.

A camera is a pinhole above flat ground that looks straight ahead. In meters, X points right and Z away from the
camera; a point on the ground at depth Z is `focal / Z` pixels per meter large.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

TILE = 1.5  # meters between the joints of the pavement
FULL_WIDTH = 640  # the picture width for which sizes in pixels are written down here


@dataclass(frozen=True)
class Camera:
    """Where a camera stands and what never changes before it.

    Attributes:
      size: width and height of its pictures, pixels.
      focal: pixels.
      above: height above the ground, meters.
      horizon: row of the horizon, may lie outside the picture.
      near, far: the depths between which people walk, meters.
      background: [h, w, 3] float32 RGB, 0..1.
      light: [h, w] float32, how much light falls on the ground of each pixel; 1 = full sun.
      things: what stands in front of people, far ones first.
    """

    size: tuple[int, int]
    focal: float
    above: float
    horizon: float
    near: float
    far: float
    background: np.ndarray
    light: np.ndarray
    things: list[Thing]

    @property
    def pitch(self) -> float:
        """Angle in radians at which the camera sees the middle of the walkable ground from above."""
        return float(np.arctan2(self.above - 0.9, (self.near + self.far) / 2))

    def ground(self, x: float, z: float) -> tuple[float, float, float]:
        """Column and row of a point on the ground, and the pixels per meter there."""
        scale = self.focal / z
        return self.size[0] / 2 + x * scale, self.horizon + self.above * scale, scale

    def edge(self, z: float) -> float:
        """X of the picture's right edge at a depth, meters."""
        return self.size[0] / 2 * z / self.focal


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground: its picture [h, w, 4] float32 RGBA, top left corner, and depth."""

    rgba: np.ndarray
    left: int
    top: int
    depth: float


@dataclass(frozen=True)
class Look:
    """How one video renders colors; the camera's own cast and the light of the hour.

    Attributes:
      mix: [3, 3] linear map of RGB.
      gamma: exponent.
      blur: standard deviation in pixels.
      noise: standard deviation in levels of 255.
      sun: unit vector (right, down, towards the viewer) towards the light.
    """

    mix: np.ndarray
    gamma: float
    blur: float
    noise: float
    sun: tuple[float, float, float]

    def color(self, rgb: np.ndarray) -> np.ndarray:
        """[..., 3] RGB 0..1 in full sun -> float32 levels as this video shows them, above 255 where overexposed."""
        mixed = np.maximum(rgb @ self.mix.T, 0)
        return 255 * mixed.astype(np.float32) ** np.float32(self.gamma)

    def dim(self, light: float | np.ndarray) -> float | np.ndarray:
        """What `color`'s levels are multiplied with where less light falls (1 = full sun)."""
        return light**self.gamma


class Lens:
    """Blur and sensor noise of one video. The noise of a frame is a random window of one larger field."""

    MARGIN = 64

    def __init__(self, look: Look, size: tuple[int, int], rng: np.random.Generator):
        self.look, self.rng = look, rng
        shape = (size[1] + self.MARGIN, size[0] + self.MARGIN, 1)
        self._field = rng.standard_normal(shape, np.float32) * np.float32(look.noise)

    def __call__(self, frame: np.ndarray) -> np.ndarray:
        """[h, w, 3] float32 0..255 -> uint8."""
        frame = cv2.GaussianBlur(frame, (0, 0), self.look.blur)
        y, x = self.rng.integers(0, self.MARGIN, 2)
        noisy = frame + self._field[y : y + frame.shape[0], x : x + frame.shape[1]]
        return cv2.convertScaleAbs(np.maximum(noisy, 0))


def make_look(camera: np.random.Generator, hour: np.random.Generator) -> Look:
    """Draws a look; the first generator is the camera's (the same for all of its videos), the second the video's."""
    cast = np.exp(camera.normal(0, 0.09, 3))
    saturation = camera.uniform(0.65, 1.1)
    grey = np.full((3, 3), 1 / 3)
    warmth = hour.normal(0, 0.06)
    tint = np.exp([warmth, 0, -warmth])
    gain = camera.uniform(1.05, 1.35) * hour.uniform(0.8, 1.15) / np.mean(cast * tint)
    mix = np.diag(gain * cast * tint) @ (saturation * np.eye(3) + (1 - saturation) * grey)
    sun = np.array([hour.uniform(-0.9, 0.9), hour.uniform(-1.0, -0.5), hour.uniform(0.4, 0.9)])
    right, down, front = sun / np.linalg.norm(sun)
    return Look(
        mix=mix,
        gamma=float(camera.uniform(0.65, 1.0)),
        blur=float(camera.uniform(0.4, 1.1)),
        noise=float(camera.uniform(1.0, 6.0)),
        sun=(float(right), float(down), float(front)),
    )


def make_camera(rng: np.random.Generator, size: tuple[int, int]) -> Camera:
    """Draws a camera with its street. People between its near and far bounds are 62 to 150 of 640 pixels high."""
    width, height = size
    unit = width / FULL_WIDTH
    focal, above = width * rng.uniform(0.9, 1.15), rng.uniform(2.6, 3.8)
    near, far = focal / (unit * rng.uniform(64, 80)), focal / (unit * rng.uniform(40, 48))
    horizon = height * rng.uniform(0.92, 0.98) - above * focal / near
    shape = (near, far, focal, above, horizon)
    painter = _Painter(rng, size, *shape)
    return Camera(size, focal, above, horizon, near, far, painter.background(), painter.light(), painter.things())


class _Painter:
    """Draws what a camera sees when nobody is there."""

    def __init__(
        self,
        rng: np.random.Generator,
        size: tuple[int, int],
        near: float,
        far: float,
        focal: float,
        above: float,
        horizon: float,
    ):
        self.rng, self.size = rng, size
        self.near, self.far, self.focal, self.above, self.horizon = near, far, focal, above, horizon
        self.unit = size[0] / FULL_WIDTH

    def row(self, z: float) -> float:
        return self.horizon + self.above * self.focal / z

    def background(self) -> np.ndarray:
        width, height = self.size
        wall = round(self.row(self.far * 1.25))
        picture = np.zeros((height, width, 3), np.float32)
        picture[:wall] = self._facade(wall)
        picture[wall:] = self._pavement()[wall:]
        picture[wall - 2 : wall + 2] *= 0.6
        for size, strength in ((6, 0.05), (40, 0.06), (width, 0.03)):  # stains, patches, grain
            coarse = self.rng.standard_normal((size * height // width + 1, size, 1)).astype(np.float32)
            picture *= 1 + strength * cv2.resize(coarse, self.size, interpolation=cv2.INTER_CUBIC)[..., None]
        return np.clip(picture, 0, 1)

    def _pavement(self) -> np.ndarray:
        width, height = self.size
        picture = np.full((height, width, 3), self._tone(0.38, 0.62), np.float32)
        road = self.rng.uniform(self.near, self.far, 2)
        if abs(road[0] - road[1]) > 1:
            top, bottom = sorted(round(self.row(z)) for z in road)
            picture[top:bottom] = self._tone(0.25, 0.36)
        joint = tuple(float(c) for c in picture[-1, 0] * 0.82)
        for z in np.arange(1, 40) * TILE:
            y = round(self.row(z))
            cv2.line(picture, (0, y), (width, y), joint, 1, cv2.LINE_AA)
        for x in np.arange(-20, 21) * TILE:
            start, end = ((round(width / 2 + x * self.focal / z), round(self.row(z))) for z in (60, 2))
            cv2.line(picture, start, end, joint, 1, cv2.LINE_AA)
        return picture

    def _facade(self, height: int) -> np.ndarray:
        picture = np.full((height, self.size[0], 3), self._tone(0.3, 0.75), np.float32)
        left = 0
        while left < self.size[0]:
            wide = round(self.unit * self.rng.uniform(50, 130))
            self._shop(picture[:, left : left + wide])
            left += wide
        return picture

    def _shop(self, front: np.ndarray) -> None:
        """One house front: wall, window or door, sign."""
        height, width = front.shape[:2]
        front[:] = self._tone(0.25, 0.8)
        x0, x1 = round(0.12 * width), round(self.rng.uniform(0.5, 0.9) * width)
        top = round(height - self.unit * self.rng.uniform(60, 95))
        bottom = height if self.rng.random() < 0.4 else round(height - self.unit * 14)
        glass = self._tone(0.1, 0.3)
        cv2.rectangle(front, (x0, top), (x1, bottom), glass, -1)
        for _ in range(int(self.rng.integers(0, 6))):  # goods and reflections behind the glass
            x, y = self.rng.integers(x0, x1 + 1), self.rng.integers(top, max(bottom, top + 1))
            cv2.circle(front, (int(x), int(y)), int(self.rng.integers(2, 8)), self._hue(), -1, cv2.LINE_AA)
        cv2.rectangle(front, (x0, top), (x1, bottom), self._tone(0.4, 0.9), 1)
        if self.rng.random() < 0.7:
            deep = round(self.unit * self.rng.uniform(6, 16))
            cv2.rectangle(front, (x0 - 4, top - deep), (x1 + 4, top), self._hue(), -1)
        for y in range(top - round(self.unit * 60), -80, -round(self.unit * 55)):
            cv2.rectangle(front, (x0, y), (x1, y + round(self.unit * 30)), glass, -1)

    def light(self) -> np.ndarray:
        """A building's shadow over part of the ground."""
        width, height = self.size
        light = np.ones((height, width), np.float32)
        edge, slant = self.rng.uniform(0.1, 0.9, 2) * width
        corners = np.array([[edge, 0], [slant, height], [0, height], [0, 0]], np.int32)
        cv2.fillPoly(light, [corners], float(self.rng.uniform(0.5, 0.85)))
        soft = cv2.GaussianBlur(light, (0, 0), 6 * self.unit)
        return soft[:, ::-1].copy() if self.rng.random() < 0.5 else soft

    def things(self) -> list[Thing]:
        kinds = [self._pole, self._pole, self._bush, self._car, self._bin]
        count = int(self.rng.integers(3, 6))
        things = [kinds[self.rng.integers(len(kinds))]() for _ in range(count)]
        return sorted(things, key=lambda thing: -thing.depth)

    def _place(self, rgba: np.ndarray, z: float, x: float) -> Thing:
        """Stands a picture on the ground, its lower edge at depth z; x runs over the picture from 0 to 1."""
        height, width = rgba.shape[:2]
        left = round(x * self.size[0] - width / 2)
        return Thing(cv2.GaussianBlur(rgba, (0, 0), 0.6), left, round(self.row(z)) - height, z)

    def _canvas(self, wide: float, high: float, z: float) -> np.ndarray:
        scale = self.focal / z
        return np.zeros((max(4, round(high * scale)), max(4, round(wide * scale)), 4), np.float32)

    def _pole(self) -> Thing:
        z = self.rng.uniform(self.near, self.far)
        rgba = self._canvas(self.rng.uniform(0.12, 0.28), 6, z)
        shade = 1 - 0.5 * np.linspace(-1, 1, rgba.shape[1]) ** 2
        rgba[..., :3] = np.array(self._tone(0.2, 0.5)) * shade[None, :, None]
        rgba[..., 3] = 1
        return self._place(rgba, z, self.rng.uniform(0.1, 0.9))

    def _bush(self) -> Thing:
        z = self.rng.uniform(self.near, (self.near + self.far) / 2)
        rgba = self._canvas(self.rng.uniform(0.7, 1.6), self.rng.uniform(0.5, 1.0), z)
        height, width = rgba.shape[:2]
        green = np.array([0.22, 0.36, 0.16]) * self.rng.uniform(0.7, 1.3)
        for _ in range(70):
            x, y = self.rng.uniform(0.12, 0.88) * width, self.rng.uniform(0.2, 1.0) * height
            color = np.clip(green * self.rng.uniform(0.5, 1.3), 0, 1)
            cv2.circle(rgba, (int(x), int(y)), max(2, int(0.11 * width)), (*color.tolist(), 1.0), -1, cv2.LINE_AA)
        return self._place(rgba, z, self.rng.uniform(0.05, 0.95))

    def _car(self) -> Thing:
        z = self.rng.uniform(self.near, self.near * 1.15)
        rgba = self._canvas(3.9, 1.35, z)
        height, width = rgba.shape[:2]
        paint, glass = (*self._hue(), 1.0), (*self._tone(0.1, 0.2), 1.0)
        roof = np.array([[0.2, 0.45], [0.32, 0.04], [0.68, 0.04], [0.84, 0.45]]) * (width, height)
        pane = np.array([[0.25, 0.43], [0.34, 0.1], [0.66, 0.1], [0.78, 0.43]]) * (width, height)
        cv2.fillPoly(rgba, [roof.astype(np.int32)], paint, cv2.LINE_AA)
        cv2.fillPoly(rgba, [pane.astype(np.int32)], glass, cv2.LINE_AA)
        cv2.rectangle(rgba, (2, int(0.42 * height)), (width - 3, int(0.84 * height)), paint, -1)
        for x in (0.2, 0.8):
            cv2.circle(rgba, (int(x * width), int(0.82 * height)), int(0.17 * height), (0.07, 0.07, 0.07, 1), -1)
        return self._place(rgba, z, self.rng.choice([self.rng.uniform(-0.05, 0.15), self.rng.uniform(0.85, 1.05)]))

    def _bin(self) -> Thing:
        z = self.rng.uniform(self.near, self.far)
        rgba = self._canvas(0.5, 0.95, z)
        rgba[..., :3], rgba[..., 3] = self._hue(), 1
        rgba[: max(1, len(rgba) // 8), :, :3] *= 0.5
        return self._place(rgba, z, self.rng.uniform(0.1, 0.9))

    def _tone(self, low: float, high: float) -> tuple[float, float, float]:
        """A nearly grey color."""
        r, g, b = np.clip(self.rng.uniform(low, high) + self.rng.normal(0, 0.04, 3), 0, 1)
        return float(r), float(g), float(b)

    def _hue(self) -> tuple[float, float, float]:
        """Any color but the most glaring."""
        r, g, b = self.rng.uniform(0.15, 0.75, 3)
        return float(r), float(g), float(b)
