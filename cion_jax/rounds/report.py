"""What an adaptation did: numbers as JSON, and a page with ranked lists of the user's own images before and after."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

from cion_jax.common import images
from cion_jax.common.files import read_regular, write_text
from cion_jax.data.records import damage
from cion_jax.neighbors import cosine
from cion_jax.rounds import halves
from cion_jax.rounds.probe import Probe
from cion_jax.rounds.run import Round

QUERIES, TOP, HEIGHT = 12, 8, 96  # tracks that are asked for, answers, pixels of a picture


def write(folder: Path, rounds: list[Round], kept: Round, probe: Probe) -> Path:
    """Writes `report.json` and `report.html`; returns the latter."""
    numbers = {"kept": kept.number, "rounds": [_row(each, rounds[0]) for each in rounds]}
    write_text(folder / "report.json", json.dumps(numbers, indent=1) + "\n")
    before, after = (_features(folder / f"round{number}" / "probe.npy", probe) for number in (0, kept.number))
    loader = jinja2.FileSystemLoader(Path(__file__).parent)
    page = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    rates = list(kept.score.operating)
    lists = _lists(before, after, probe)
    text = page.get_template("report.html").render(rounds=numbers["rounds"], kept=kept.number, rates=rates, lists=lists)
    write_text(folder / "report.html", text)
    return folder / "report.html"


def _features(path: Path, probe: Probe) -> np.ndarray:
    """[N, d] of the probe, as they were when a round was measured."""
    with damage(path, f"delete {path.with_name('score.json')}; both are made again"):
        found = np.load(io.BytesIO(read_regular(path)), allow_pickle=False)
        if found.ndim != 2 or len(found) != len(probe.jpegs):
            raise ValueError(f"features {found.shape} of {len(probe.jpegs)} pictures")
        return found


def _row(each: Round, given: Round) -> dict[str, Any]:
    row: dict[str, Any] = {"round": each.number, "checkpoint": each.checkpoint, **dataclasses.asdict(each.score)}
    del row["resampled"]
    if each.data:
        row |= {"rise": halves.rise(given.score, each.score), **_certified(each.data)}
        row |= {"images": each.data["selection"]["images"], "identities": each.data["selection"]["identities"]}
    return row


def _certified(data: dict[str, Any]) -> dict[str, Any]:
    """What data_prep estimates of the identities' precision and recall; nothing where it does not estimate them."""
    found = data.get("certificate") or {}
    return {name: found[name] for name in ("precision", "recall") if found.get("applied")}


def _lists(before_ND: np.ndarray, after_ND: np.ndarray, probe: Probe) -> list[dict[str, Any]]:
    """By query: its picture, and the nearest other tracks before and after; tracks evenly among those that changed."""
    first = np.unique(probe.track, return_index=True)[1]
    ranked = [_nearest(features_ND, probe.track, first) for features_ND in (before_ND, after_ND)]
    changed = [len(set(a[0]) - set(b[0])) for a, b in zip(*ranked, strict=True)]
    found = []
    order = np.argsort(np.array(changed) == 0, kind="stable")  # where fewer changed, others fill up
    among = order[: max(np.count_nonzero(changed), min(QUERIES, len(order)))]
    for track in among[np.unique(np.linspace(0, len(among) - 1, QUERIES).astype(int))]:
        answers = [
            [_picture(probe, int(first[t]), f"{d:.3f}") for t, d in zip(*of[track], strict=True)] for of in ranked
        ]
        found.append({"query": _picture(probe, int(first[track]), ""), "before": answers[0], "after": answers[1]})
    return found


def _nearest(features_ND: np.ndarray, track_N: np.ndarray, first_T: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """By track: the `TOP` nearest other tracks, and their cosine distances."""
    means_TD = cosine.unit(np.add.reduceat(cosine.unit(features_ND), first_T))
    distance_TT = 1 - means_TD @ means_TD.T
    np.fill_diagonal(distance_TT, np.inf)
    order = np.argsort(distance_TT, axis=1, kind="stable")[:, : min(TOP, len(first_T) - 1)]
    return [(row, distance_TT[track, row]) for track, row in enumerate(order)]


def _picture(probe: Probe, number: int, note: str) -> dict[str, str]:
    picture = images.decode(probe.jpegs[number])
    scale = HEIGHT / picture.shape[0]
    small = cv2.resize(picture, (max(1, round(picture.shape[1] * scale)), HEIGHT), interpolation=cv2.INTER_AREA)
    data = base64.b64encode(images.encode_jpeg(small, 85)).decode()
    return {"source": f"data:image/jpeg;base64,{data}", "name": probe.names[number], "note": note}
