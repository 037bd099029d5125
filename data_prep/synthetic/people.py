"""The people of the synthetic street: what they look like, how they walk, and the solids that they are made of.

Lengths are shares of the body height unless said otherwise. The body's frame is x forward, y to its left, z up.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np

Color = tuple[float, float, float]  # RGB, 0..1

CLOTH = [
    (24, 24, 28), (62, 64, 70), (128, 130, 134), (226, 226, 222), (28, 38, 82), (60, 98, 168), (150, 30, 36),
    (196, 84, 60), (52, 92, 58), (108, 112, 62), (196, 170, 122), (104, 70, 46), (222, 184, 66), (116, 62, 128),
    (214, 136, 160), (70, 150, 150),
]  # fmt: skip
CLOTH_SHARE = [5, 3, 3, 3, 4, 3, 2, 1, 2, 1, 2, 2, 1, 1, 1, 1]  # dark and grey clothes are the common ones
SKIN = [(240, 204, 178), (224, 178, 146), (196, 146, 108), (152, 104, 72), (104, 68, 48), (70, 48, 38)]
HAIR = [(22, 18, 18), (54, 36, 26), (94, 62, 38), (164, 124, 70), (150, 150, 150), (120, 52, 30)]
UPPER_PATTERNS = ("plain", "plain", "plain", "rings", "bars", "checks", "logo", "yoke", "open", "open", "band", "back")
LOWER_PATTERNS = ("plain", "plain", "plain", "seam", "fade")
LOWER_KINDS = ("trousers", "trousers", "trousers", "trousers", "shorts", "skirt", "long skirt")
HAIR_KINDS = ("short", "short", "short", "long", "long", "bun", "cap", "bald", "full")
BAGS = ("none", "none", "backpack", "backpack", "shoulder", "hand")


class Paint(NamedTuple):
    """Color over a part's surface: `kind` says where `second` shows instead of `first`."""

    kind: str
    first: Color
    second: Color = (0.0, 0.0, 0.0)
    strap: Color | None = None
    strap_kind: str = "none"


class Part(NamedTuple):
    """A tapered solid from `a` (top) to `b`, with an elliptic cross-section.

    Attributes:
      a, b: ends, (x, y, z) in the body's frame.
      lateral: half width from side to side at a and b.
      depth: half width from front to back at a and b.
      flat: ends are cut instead of rounded.
      span: where on the garment (0 top .. 1 bottom) a and b lie, for patterns that run over several parts.
    """

    a: np.ndarray
    b: np.ndarray
    lateral: tuple[float, float]
    depth: tuple[float, float]
    paint: Paint
    flat: bool = False
    span: tuple[float, float] = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Person:
    """All that stays with a person from video to video. `height` is in meters, `cadence` in strides per second."""

    height: float
    girth: float
    shoulders: float
    hips: float
    skin: Color
    hair: Color
    hair_kind: str
    upper: Paint
    lower: Paint
    lower_kind: str
    coat: bool
    long_sleeves: bool
    shoes: Color
    bag: str
    bag_color: Color
    bag_side: float
    stride: float
    arm_swing: float
    lean: float
    speed: float


def draw_person(rng: np.random.Generator) -> Person:
    """Draws one person; the common things are drawn often, so that many people share some of their clothes."""
    bag, bag_color = _pick(rng, BAGS), _cloth(rng)
    strap = bag_color if bag in ("backpack", "shoulder") else None
    hair_kind = _pick(rng, HAIR_KINDS)
    return Person(
        height=float(rng.uniform(1.52, 1.94)),
        girth=float(rng.uniform(0.85, 1.3)),
        shoulders=float(rng.uniform(0.92, 1.12)),
        hips=float(rng.uniform(0.92, 1.15)),
        skin=_near(rng, SKIN, 6),
        hair=_cloth(rng) if hair_kind == "cap" else _near(rng, HAIR, 8),
        hair_kind=hair_kind,
        upper=Paint(_pick(rng, UPPER_PATTERNS), _cloth(rng), _cloth(rng), strap, bag),
        lower=Paint(_pick(rng, LOWER_PATTERNS), _cloth(rng), _cloth(rng)),
        lower_kind=_pick(rng, LOWER_KINDS),
        coat=bool(rng.random() < 0.2),
        long_sleeves=bool(rng.random() < 0.65),
        shoes=_cloth(rng),
        bag=bag,
        bag_color=bag_color,
        bag_side=float(rng.choice([-1.0, 1.0])),
        stride=float(rng.uniform(0.36, 0.56)),
        arm_swing=float(rng.uniform(0.15, 0.6)),
        lean=float(rng.uniform(-0.02, 0.12)),
        speed=float(rng.uniform(0.95, 1.5)),
    )


def body(person: Person, phase: float) -> list[Part]:
    """The parts of a walking person at a phase (radians) of the stride."""
    left, right = (_leg(person, phase, 1.0), _leg(person, phase + np.pi, -1.0))
    drop = 0.02 - min(leg[2][2] for leg in (left, right))  # the lower foot stands on the ground
    legs = [[joint + np.array([0, 0, drop]) for joint in leg] for leg in (left, right)]
    hip = 0.5 + drop
    trunk = _Trunk(person, hip)
    parts = [*_lower(person, legs, hip), *trunk.parts(), *_head(person, trunk)]
    for side, turn in ((1.0, 0.0), (-1.0, np.pi)):
        parts += _arm(person, trunk, phase + turn, side)
    return parts + _carried(person, trunk)


class _Trunk:
    """The upper body: heights above the hip, tilted by the person's lean."""

    def __init__(self, person: Person, hip: float):
        self.person, self.hip = person, hip

    def at(self, height: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
        """A point of the upright body (hip at 0.5), carried along with bob and lean."""
        up = height - 0.5
        return np.array([x + up * self.person.lean, y, self.hip + up])

    def parts(self) -> list[Part]:
        p = self.person
        chest, waist, hem = 0.112 * p.shoulders, 0.078 * p.girth, 0.092 * p.hips * (0.5 + 0.5 * p.girth)
        thick, belly = 0.058 + 0.012 * p.girth, 0.07 * p.girth
        rows = [  # height, half width, half depth, place on the garment
            (0.855, 0.035, 0.035, 0.0), (0.825, chest * 0.93, 0.05, 0.08), (0.79, chest, thick, 0.2),
            (0.63, waist, belly, 0.72), (0.52, hem, 0.072 * p.girth, 1.0),
        ]  # fmt: skip
        if p.coat:
            rows.append((0.33, hem * 1.15, 0.085 * p.girth, 1.6))
        ends = pairwise(rows)
        return [
            Part(self.at(h0), self.at(h1), (w0, w1), (d0, d1), p.upper, True, (s0, s1))
            for (h0, w0, d0, s0), (h1, w1, d1, s1) in ends
        ]


def _leg(person: Person, phase: float, side: float) -> list[np.ndarray]:
    """Hip, knee, ankle and toe of one leg of a body whose hip is 0.5 high."""
    thigh = person.stride * np.sin(phase)
    shin = thigh - 0.08 - 0.95 * max(0.0, np.cos(phase)) ** 1.5
    hip = np.array([0.0, side * 0.046 * person.hips, 0.5])
    knee = hip + 0.235 * np.array([np.sin(thigh), 0, -np.cos(thigh)])
    ankle = knee + 0.235 * np.array([np.sin(shin), 0, -np.cos(shin)])
    foot = 0.6 * shin + 0.1
    return [hip, knee, ankle, ankle + 0.085 * np.array([np.cos(foot), side * 0.2, np.sin(foot) - 0.1])]


def _lower(person: Person, legs: list[list[np.ndarray]], hip: float) -> list[Part]:
    thick, bare = 0.8 + 0.2 * person.girth, Paint("plain", person.skin)
    thigh_paint = bare if person.lower_kind == "skirt" else person.lower
    shin_paint = person.lower if person.lower_kind == "trousers" else bare
    cuff = 0.031 if person.lower_kind == "trousers" else 0.024
    parts = []
    for hip_joint, knee, ankle, toe in legs:
        parts += [
            _limb(hip_joint, knee, 0.055 * thick, 0.038 * thick, thigh_paint, (0.1, 0.55)),
            _limb(knee, ankle, 0.037 * thick, cuff, shin_paint, (0.55, 1.0)),
            _limb(ankle, toe, 0.022, 0.017, Paint("plain", person.shoes)),
        ]
    width, depth = 0.09 * person.hips * (0.5 + 0.5 * person.girth), 0.07 * person.girth
    low, flare, swing = {"skirt": (0.3, 1.2, 1.7), "long skirt": (0.12, 1.35, 2.6)}.get(
        person.lower_kind, (0.45, 0.95, 0.95)
    )
    top, bottom = np.array([0, 0, hip + 0.03]), np.array([0, 0, low + hip - 0.5])
    widths, depths = (width, width * flare), (depth, depth * swing)
    return [*parts, Part(top, bottom, widths, depths, person.lower, True, (0.0, 0.5))]


def _arm(person: Person, trunk: _Trunk, phase: float, side: float) -> list[Part]:
    swing = person.arm_swing * (0.3 if person.bag == "hand" and side == person.bag_side else 1.0)
    upper, thick = -swing * np.sin(phase) + 0.05, 0.75 + 0.25 * person.girth
    fore = upper + 0.15 + 0.7 * swing * max(0.0, -np.sin(phase))
    shoulder = trunk.at(0.805, y=side * 0.112 * person.shoulders)
    elbow = shoulder + 0.165 * np.array([np.sin(upper), side * 0.16, -np.cos(upper)])
    wrist = elbow + 0.15 * np.array([np.sin(fore), -side * 0.02, -np.cos(fore)])
    hand = wrist + 0.03 * np.array([np.sin(fore), 0, -np.cos(fore)])
    skin, sleeve = Paint("plain", person.skin), person.upper._replace(strap=None)
    if sleeve.kind in ("logo", "open", "back", "yoke"):  # these belong to the trunk alone
        sleeve = sleeve._replace(kind="plain")
    parts = [
        _limb(shoulder, elbow, 0.032 * thick, 0.028 * thick, sleeve, (0.15, 0.55)),
        _limb(elbow, wrist, 0.027 * thick, 0.021, sleeve if person.long_sleeves else skin, (0.55, 0.95)),
        _limb(wrist, hand, 0.019, 0.018, skin),
    ]
    if person.bag == "hand" and side == person.bag_side:
        low = hand + np.array([0.0, side * 0.02, -0.12])
        paint = Paint("band", person.bag_color, person.upper.second)
        parts.append(Part(hand - np.array([0, 0, 0.03]), low, (0.02, 0.03), (0.05, 0.075), paint, True))
    return parts


def _head(person: Person, trunk: _Trunk) -> list[Part]:
    skin, hair = Paint("plain", person.skin), Paint("plain", person.hair)
    kind = {"bald": "bald", "cap": "cap", "full": "hair"}.get(person.hair_kind, "hair")
    parts = [
        _limb(trunk.at(0.89, 0.005), trunk.at(0.845), 0.033, 0.036, skin),
        Part(trunk.at(0.955, 0.012), trunk.at(0.912, 0.016), (0.054, 0.048), (0.062, 0.056),
             Paint(kind, person.skin, person.hair)),
    ]  # fmt: skip
    if person.hair_kind == "long":
        parts.append(_limb(trunk.at(0.945, -0.03), trunk.at(0.81, -0.055), 0.052, 0.055, hair))
    if person.hair_kind == "bun":
        parts.append(_limb(trunk.at(0.97, -0.058), trunk.at(0.96, -0.06), 0.027, 0.027, hair))
    if person.hair_kind == "full":
        parts.append(_limb(trunk.at(0.97, -0.022), trunk.at(0.93, -0.03), 0.064, 0.06, hair))
    if person.hair_kind == "cap":
        parts.append(Part(trunk.at(0.963, 0.05), trunk.at(0.958, 0.1), (0.035, 0.026), (0.012, 0.012), hair))
    return parts


def _carried(person: Person, trunk: _Trunk) -> list[Part]:
    paint = Paint("band", person.bag_color, person.lower.second)
    if person.bag == "backpack":
        return [Part(trunk.at(0.79, -0.1), trunk.at(0.62, -0.115), (0.066, 0.078), (0.04, 0.06), paint)]
    if person.bag == "shoulder":
        y = person.bag_side * (0.1 * person.hips + 0.035)
        return [Part(trunk.at(0.57, 0.0, y), trunk.at(0.46, 0.0, y), (0.028, 0.034), (0.075, 0.09), paint, True)]
    return []


def _limb(
    a: np.ndarray, b: np.ndarray, start: float, end: float, paint: Paint, span: tuple[float, float] = (0.0, 1.0)
) -> Part:
    return Part(a, b, (start, end), (start, end), paint, False, span)


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[rng.integers(len(names))]


def _cloth(rng: np.random.Generator) -> Color:
    return _near(rng, CLOTH, 9, CLOTH_SHARE)


def _near(rng: np.random.Generator, colors: list, spread: float, share: list[int] | None = None) -> Color:
    p = None if share is None else np.array(share) / sum(share)
    base = np.array(colors[rng.choice(len(colors), p=p)])
    red, green, blue = np.clip((base + rng.normal(0, spread, 3)) / 255, 0.03, 0.97)
    return float(red), float(green), float(blue)
