"""From per-video results to one data set: level 3, noise and scores of every level, selection, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.progress import progress
from data_prep import company
from data_prep.collection import Collection
from data_prep.config import OVERLAP, Config, Limits
from data_prep.denoise import cosine, cross_video, noise, score
from data_prep.denoise.labels import numbered
from data_prep.denoise.linkage import NO_PAIRS
from data_prep.denoise.per_video import Levels
from data_prep.denoise.robust import Outcome
from data_prep.result import ACTIONS, DISCARDED, KEPT, LEVELS, MOVED, PROVENANCE
from data_prep.select import select


@dataclass(frozen=True)
class Gathered:
    """The data set after all levels; see `result.RunResult` for the fields of the same name."""

    provenance: pa.Table
    levels: list[dict[str, Any]]
    selection: dict[str, Any]
    clustering: Outcome | None


def gather(collection: Collection, config: Config, limits: Limits) -> Gathered:
    """Finds the identities and measures every level."""
    clustering, final = None, None
    if config.method.linkage == OVERLAP:
        done, final, clustering = company.identities(collection, config.method)
    else:
        done = collection.levels(_saved_levels(collection))
    labels = {
        "input": collection.tracklet,
        "single_tracklet": np.where(done.round == 0, collection.tracklet, -1),
        "single_video": done.identity,
    }
    levels: list[dict[str, Any]] = []
    means = np.zeros((0, 0))
    for name in progress(LEVELS, "level 3, noise and scores"):
        if name == "cross_video":
            labels[name] = _chained(collection, config, done, means, limits) if final is None else final
        means = cosine.centroids(collection.parts(labels[name]), _count(labels[name]))
        levels.append(_measured(name, collection, labels[name], means, limits))
    columns = _level_columns(collection, done)
    provenance, selection = _selected(collection, labels["cross_video"], columns, config)
    return Gathered(provenance, levels, selection, clustering)


def _saved_levels(collection: Collection) -> Iterator[Levels]:
    for video in collection.videos:
        with np.load(collection.work.file(video, "levels")) as arrays:
            yield Levels(**arrays)


def _chained(collection: Collection, config: Config, done: Levels, means: np.ndarray, limits: Limits) -> np.ndarray:
    """[N] identities after level 3 as published, from those of level 2 and their centroids."""
    cannot = collection.met(done.identity) if config.method.cannot_link else NO_PAIRS
    linked = cross_video.link(means, limits.sigma_drm, limits.r_s, cannot)
    return np.where(done.identity >= 0, linked[done.identity], -1)


def gather_identified(collection: Collection, config: Config, limits: Limits) -> Gathered:
    """Takes the identities that the source knows; noise is measured where there are features."""
    truth, known = collection.truth()
    known &= truth >= 0
    identity = np.full(len(truth), -1)
    identity[known] = numbered(truth[known])
    means = cosine.centroids(collection.parts(identity), _count(identity))
    level: dict[str, Any] = {"name": "input", "images": int(known.sum()), "identities": len(means)}
    if means.shape[1]:
        level |= _noise(collection, identity, means, limits)
    provenance, selection = _selected(collection, identity, {}, config)
    return Gathered(provenance, [level], selection, None)


def _measured(
    name: str, collection: Collection, labels: np.ndarray, means: np.ndarray, limits: Limits
) -> dict[str, Any]:
    truth, known = collection.truth()
    return {
        "name": name,
        "images": int((labels >= 0).sum()),
        "identities": len(means),
        **_noise(collection, labels, means, limits),
        **score.score(labels[known], truth[known]),
    }


def _noise(collection: Collection, labels: np.ndarray, means: np.ndarray, limits: Limits) -> dict[str, float]:
    found = noise.measure(collection.parts(labels), means, limits.sigma_cst, limits.sigma_drm)
    each = max(found.identities, 1)
    return {
        "noise": found.total,
        "consistency_noise": found.consistency / each,
        "discrimination_noise": found.discrimination / each,
    }


def _level_columns(collection: Collection, done: Levels) -> dict[str, Any]:
    """Columns of the provenance that levels 1 and 2 fill."""
    codes = {name: i for i, name in enumerate(ACTIONS)}
    action = np.where(done.tracklet >= 0, codes[MOVED], codes[DISCARDED])
    action[done.round == 0] = codes[KEPT]
    names = pa.array(collection.tracklets, pa.string())
    moved_to = pa.array(done.tracklet, mask=done.tracklet < 0)
    return {
        "level1_round": pa.array(done.round),
        "level1_distance": _nullable(done.distance, np.isnan(done.distance)),
        "level2_action": pa.DictionaryArray.from_arrays(pa.array(action, pa.int32()), list(ACTIONS)),
        "level2_tracklet": names.take(moved_to).dictionary_encode(),
        "level2_distance": _nullable(done.nearest, np.isnan(done.nearest)),
        "level2_identity": _nullable(done.identity, done.identity < 0),
    }


def _selected(
    collection: Collection, identity: np.ndarray, columns: Mapping[str, Any], config: Config
) -> tuple[pa.Table, dict[str, Any]]:
    """Selects, numbers the identities that are written before the others, and completes the provenance."""
    selected, dropped = select(identity, collection.tracklet, config)
    identity, written = _renumbered(identity, selected)
    record = _records(collection.table, identity, selected)
    known = {name: collection.table[name] for name in PROVENANCE.names if name in collection.table.column_names}
    known |= columns
    known["identity"] = _nullable(identity, identity < 0)
    known["selected"] = pa.array(selected)
    known["record"] = _nullable(record, ~selected)
    filled = [known[field.name] if field.name in known else pa.nulls(len(identity), field.type) for field in PROVENANCE]
    selection = {"images": int(selected.sum()), "identities": written, "not_selected": dropped}
    return pa.table(filled, schema=PROVENANCE), selection


def _renumbered(identity: np.ndarray, selected: np.ndarray) -> tuple[np.ndarray, int]:
    """Numbers the selected identities 0, 1, ... by their first image, the others after them."""
    written = np.unique(identity[selected])
    order = np.concatenate([written, np.setdiff1d(identity[identity >= 0], written)])
    number = np.full(_count(identity) + 1, -1)
    number[order] = np.arange(len(order))
    return number[identity], len(written)


def _records(table: pa.Table, identity: np.ndarray, selected: np.ndarray) -> np.ndarray:
    """[N] number of the record of every selected image; shards are sorted by identity, video, tracklet, frame, key."""
    rows = np.flatnonzero(selected)
    names = [table[name].take(rows).to_pylist() for name in ("video", "tracklet", "frame", "key")]
    keys = list(zip(identity[rows].tolist(), *names, strict=True))
    record = np.full(len(identity), -1)
    record[rows[sorted(range(len(rows)), key=keys.__getitem__)]] = np.arange(len(rows))
    return record


def _count(labels: np.ndarray) -> int:
    return int(labels.max(initial=-1)) + 1


def _nullable(values: np.ndarray, missing: np.ndarray) -> pa.Array:
    return pa.array(values, mask=missing)
