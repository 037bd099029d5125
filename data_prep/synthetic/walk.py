"""Who walks where in a video of the synthetic street, and the frames that show it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import cv2
import numpy as np

from data_prep.synthetic.figures import PIXELS_PER_METRE, Sprite, View, draw
from data_prep.synthetic.people import Person
from data_prep.synthetic.scene import Camera, Lens, Look, Thing

PHASES = 8  # drawn phases of a stride
STRIDE_METRES = 0.82  # ground covered by one stride (two steps), as a share of the height
OUTSIDE = 0.5  # meters beyond the picture's edge where people appear and vanish
SHADOW = 0.45 * np.exp(-1.5 * np.add.outer(*[np.linspace(-2, 2, 41, dtype=np.float32) ** 2] * 2))


class Sighting(NamedTuple):
    """A person in a frame, as a perfect observer sees it.

    Attributes:
      frame: from 1.
      person: number of the person.
      box: left, top, width, height of the whole figure, pixels; may reach beyond the picture.
      visible: share of the figure that is in the picture and not hidden.
    """

    frame: int
    person: int
    box: tuple[float, float, float, float]
    visible: float


@dataclass
class Walk:
    """One person's way through a video, along straight lines between points on the ground.

    Attributes:
      number: of the person.
      person: looks and gait.
      start: seconds from the video's start to the first point.
      points: [n, 2] (X, Z) in meters.
      phase: of the stride at the first point, radians.
    """

    number: int
    person: Person
    start: float
    points: np.ndarray
    phase: float
    _sprites: dict[tuple[int, int], Sprite] = field(default_factory=dict)

    def __post_init__(self) -> None:
        steps = np.diff(self.points, axis=0)
        self._lengths = np.hypot(steps[:, 0], steps[:, 1])
        self._ends = np.cumsum(self._lengths)

    @property
    def seconds(self) -> float:
        """How long the walk takes."""
        return float(self._ends[-1] / self.person.speed)

    def at(self, time: float) -> tuple[np.ndarray, int, float] | None:
        """Point on the ground, leg of the way and phase of the stride at a time; None before and after the walk."""
        gone = (time - self.start) * self.person.speed
        if not 0 <= gone < self._ends[-1]:
            return None
        leg = int(np.searchsorted(self._ends, gone, side="right"))
        share = 1 - (self._ends[leg] - gone) / self._lengths[leg]
        point = self.points[leg] + share * (self.points[leg + 1] - self.points[leg])
        stride = STRIDE_METRES * self.person.height * (0.6 + self.person.stride)
        return point, leg, self.phase + 2 * np.pi * gone / stride

    def sprite(self, leg: int, phase: float, camera: Camera, look: Look) -> Sprite:
        """The figure on a leg of its way in the video's colors; drawn once per leg and step of the stride."""
        step = round(phase / (2 * np.pi) * PHASES) % PHASES
        if (leg, step) not in self._sprites:
            (x, z), (dx, dz) = self.points[leg : leg + 2].mean(0), self.points[leg + 1] - self.points[leg]
            heading = float(np.arctan2(dx, -dz) + np.arctan2(x, z))
            view = View(heading, camera.pitch, look.sun)
            figure = draw(self.person, 2 * np.pi * step / PHASES, view)
            self._sprites[leg, step] = figure._replace(rgb=look.color(figure.rgb))
        return self._sprites[leg, step]


def make_walks(
    people: Sequence[tuple[int, Person]], camera: Camera, seconds: float, rng: np.random.Generator
) -> list[Walk]:
    """One walk for each (number, person), spread evenly over the video."""
    order = rng.permutation(len(people))
    walks = []
    for slot, index in enumerate(order):
        number, person = people[index]
        walk = Walk(number, person, 0.0, _way(camera, rng), float(rng.uniform(0, 2 * np.pi)))
        room = max(seconds - walk.seconds, 0.0)
        walk.start = (slot + float(rng.random())) / len(people) * room
        walks.append(walk)
    return walks


def _way(camera: Camera, rng: np.random.Generator) -> np.ndarray:
    """In at one side, to some place, and out at the other side, towards the camera or into a house."""
    side = rng.choice([-1.0, 1.0])
    z0, z1, z2 = rng.uniform(camera.near, camera.far, 3)
    start = (side * (camera.edge(z0) + OUTSIDE), z0)
    middle = (rng.uniform(-0.6, 0.6) * camera.edge(z1), z1)
    kind = rng.random()
    if kind < 0.55:
        end = (-side * (camera.edge(z2) + OUTSIDE), z2)
    elif kind < 0.8:
        end = (rng.uniform(-0.5, 0.5) * camera.edge(camera.near), 0.6 * camera.near)
    else:
        end = (rng.uniform(-0.7, 0.7) * camera.edge(camera.far), 1.2 * camera.far)
    points = np.array([start, middle, end])
    return points if rng.random() < 0.5 else points[::-1].copy()


def film(
    camera: Camera, look: Look, walks: Sequence[Walk], frames: int, fps: float, rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, list[Sighting]]]:
    """Renders a video.

    Yields:
      per frame [h, w, 3] uint8 RGB and who is in the picture.
    """
    empty = look.color(camera.background) * look.dim(camera.light[..., None])
    things = [_lit(thing, camera, look) for thing in camera.things]
    lens = Lens(look, camera.size, rng)
    for frame in range(frames):
        stage = _Stage(camera, look, empty.copy())
        present = [(walk, place) for walk in walks if (place := walk.at(frame / fps)) is not None]
        for walk, (point, *_) in present:
            stage.shadow(walk, point)
        actors: list[tuple[float, Thing | tuple]] = [(thing.depth, thing) for thing in things]
        actors += [(float(place[0][1]), (walk, place)) for walk, place in present]
        for _, actor in sorted(actors, key=lambda pair: -pair[0]):
            stage.thing(actor) if isinstance(actor, Thing) else stage.walker(*actor)
        yield lens(stage.frame), stage.sightings(frame + 1)


class _Stage:
    """One frame while it is painted, from far to near."""

    def __init__(self, camera: Camera, look: Look, frame: np.ndarray):
        self.camera, self.look, self.frame = camera, look, frame
        self.owner = np.full(frame.shape[:2], -1, np.int32)  # whose figure a pixel shows
        self.figures: dict[int, tuple[tuple[float, float, float, float], float]] = {}

    def shadow(self, walk: Walk, point: np.ndarray) -> None:
        """Darkens the ground under a person."""
        x, y, scale = self.camera.ground(*point)
        half = (round(0.32 * scale), round(0.1 * scale))
        left, top = round(x) - 2 * half[0], round(y) - 2 * half[1]
        alpha = cv2.resize(SHADOW, (4 * half[0] + 1, 4 * half[1] + 1))
        self._blend(np.zeros((1, 1, 3), np.float32), alpha, left, top)

    def thing(self, thing: Thing) -> None:
        """Paints something that stands in the street."""
        mask, where = self._blend(thing.rgba[..., :3], thing.rgba[..., 3], thing.left, thing.top)
        self.owner[where][mask] = -1

    def walker(self, walk: Walk, place: tuple[np.ndarray, int, float]) -> None:
        """Paints a person."""
        point, leg, phase = place
        sprite = walk.sprite(leg, phase, self.camera, self.look)
        x, y, scale = self.camera.ground(*point)
        ratio = scale / PIXELS_PER_METRE
        height, width = (max(1, round(ratio * side)) for side in sprite.alpha.shape)
        alpha = cv2.resize(sprite.alpha, (width, height), interpolation=cv2.INTER_AREA)
        rgb = cv2.resize(sprite.rgb, (width, height), interpolation=cv2.INTER_AREA)
        left, top = round(x - sprite.foot[0] * ratio), round(y - sprite.foot[1] * ratio)
        dim = np.float32(self.look.dim(_light_at(self.camera, x, y)))
        rgb = rgb * (dim / np.maximum(alpha, 0.01))[..., None]
        mask, where = self._blend(rgb, alpha, left, top)
        self.owner[where][mask] = walk.number
        box, area = _extent(alpha > 0.5)
        self.figures[walk.number] = (left + box[0], top + box[1], box[2], box[3]), area

    def sightings(self, frame: int) -> list[Sighting]:
        """Everybody of whom at least a pixel shows, in the order of their numbers."""
        counts = np.bincount(self.owner[self.owner >= 0], minlength=1)
        seen = []
        for number, (box, area) in sorted(self.figures.items()):
            if number < len(counts) and counts[number]:
                seen.append(Sighting(frame, number, box, float(counts[number] / area)))
        return seen

    def _blend(
        self, color: np.ndarray, alpha: np.ndarray, left: int, top: int
    ) -> tuple[np.ndarray, tuple[slice, slice]]:
        """Paints over the frame where they overlap; returns the solid pixels there, and where that is."""
        height, width = self.frame.shape[:2]
        rows = slice(max(top, 0), max(0, min(top + alpha.shape[0], height)))
        columns = slice(max(left, 0), max(0, min(left + alpha.shape[1], width)))
        inner = slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left)
        if rows.start >= rows.stop or columns.start >= columns.stop:
            return np.zeros((0, 0), bool), (slice(0, 0), slice(0, 0))
        under, share = self.frame[rows, columns], alpha[inner][..., None]
        under += share * (np.broadcast_to(color, (*alpha.shape, 3))[inner] - under)
        return alpha[inner] > 0.5, (rows, columns)


def _light_at(camera: Camera, x: float, y: float) -> float:
    width, height = camera.size
    return float(camera.light[min(max(int(y), 0), height - 1), min(max(int(x), 0), width - 1)])


def _lit(thing: Thing, camera: Camera, look: Look) -> Thing:
    """A thing in the colors that this video gives it where it stands."""
    dim = look.dim(_light_at(camera, thing.left, thing.top + len(thing.rgba)))
    return replace(thing, rgba=np.dstack([look.color(thing.rgba[..., :3]) * dim, thing.rgba[..., 3]]))


def _extent(mask: np.ndarray) -> tuple[tuple[float, float, float, float], int]:
    """Bounding box (left, top, width, height) and area of a mask."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    left, top = float(columns[0]), float(rows[0])
    return (left, top, float(columns[-1]) + 1 - left, float(rows[-1]) + 1 - top), int(mask.sum())
