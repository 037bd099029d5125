"""From per-video results to one data set: level 3, noise and scores of every level, selection, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cion_jax.common.progress import progress
from cion_jax.neighbors import cosine
from cion_jax.neighbors.labels import numbered
from cion_jax.neighbors.linkage import NO_PAIRS
from data_prep.config import OVERLAP, Config, Limits
from data_prep.denoise import cross_video, nearest_member, noise, score
from data_prep.denoise.per_video import Levels
from data_prep.denoise.shared_neighbors import Outcome
from data_prep.output.provenance import ACTIONS, DISCARDED, KEPT, LEVELS, MOVED, PROVENANCE
from data_prep.pipeline import cluster
from data_prep.pipeline.image_table import Collection
from data_prep.pipeline.select import select


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
        done, final, clustering = cluster.identities(collection, config.method)
    else:
        done = collection.levels(saved_levels(collection))
    labels = {
        "input": collection.tracklet,
        "single_tracklet": np.where(done.round == 0, collection.tracklet, -1),
        "single_video": done.identity,
    }
    levels: list[dict[str, Any]] = []
    columns = _level_columns(collection, done)
    means = np.zeros((0, 0))
    for name in progress(LEVELS, "level 3, noise and scores"):
        if name == "cross_video":
            labels[name] = _chained(collection, config, done, means, limits) if final is None else final
            columns["level3_joined"] = _optional(_joined(done.identity, labels[name], means))
        means = cosine.centroids(collection.parts(labels[name]), _count(labels[name]))
        found = noise.measure(collection.parts(labels[name]), means, limits.sigma_cst, limits.sigma_drm)
        levels.append(_measured(name, collection, labels[name], found))
        columns["distance"] = _optional(found.distance)
    provenance, selection = _selected(collection, labels["cross_video"], columns, config)
    return Gathered(provenance, levels, selection, clustering)


def saved_levels(collection: Collection) -> Iterator[Levels]:
    """What levels 1 and 2 left in the work folder, video by video."""
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
    columns: dict[str, Any] = {}
    if means.shape[1]:
        found = noise.measure(collection.parts(identity), means, limits.sigma_cst, limits.sigma_drm)
        level |= _noise(found)
        columns["distance"] = _optional(found.distance)
    provenance, selection = _selected(collection, identity, columns, config)
    return Gathered(provenance, [level], selection, None)


def _joined(before: np.ndarray, after: np.ndarray, means: np.ndarray) -> np.ndarray:
    """[N] distance of every image's identity of level 2 to the nearest other that level 3 joined it with."""
    group = np.full(len(means), -1)
    group[before[before >= 0]] = after[before >= 0]
    return np.append(nearest_member.nearest(means, group), np.nan)[before]


def _measured(name: str, collection: Collection, labels: np.ndarray, found: noise.Noise) -> dict[str, Any]:
    truth, known = collection.truth()
    return {
        "name": name,
        "images": int((labels >= 0).sum()),
        "identities": found.identities,
        **_noise(found),
        **score.score(labels[known], truth[known]),
    }


def _noise(found: noise.Noise) -> dict[str, float]:
    each = max(found.identities, 1)
    kinds = {
        "noise": found.total,
        "consistency_noise": found.consistency / each,
        "discrimination_noise": found.discrimination / each,
    }
    if found.compared == found.identities:
        return kinds
    return {**kinds, "discrimination_compared": found.compared, "discrimination_error": found.error / each}


def _level_columns(collection: Collection, done: Levels) -> dict[str, Any]:
    """Columns of the provenance that levels 1 and 2 fill."""
    codes = {name: i for i, name in enumerate(ACTIONS)}
    action = np.where(done.tracklet >= 0, codes[MOVED], codes[DISCARDED])
    action[done.round == 0] = codes[KEPT]
    names = pa.array(collection.tracklets, pa.string())
    moved_to = pa.array(done.tracklet, mask=done.tracklet < 0)
    return {
        "level1_round": pa.array(done.round),
        "level1_distance": _optional(done.distance),
        "level2_action": pa.DictionaryArray.from_arrays(pa.array(action, pa.int32()), list(ACTIONS)),
        "level2_tracklet": names.take(moved_to).dictionary_encode(),
        "level2_distance": _optional(done.nearest),
        "level2_identity": _nullable(done.identity, done.identity < 0),
        "level2_joined": _optional(done.joined),
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
    columns = {name: table[name].take(rows) for name in ("video", "tracklet", "frame", "key")}
    keys = {name: c.cast(pa.string()) if pa.types.is_dictionary(c.type) else c for name, c in columns.items()}
    keys = {"identity": identity[rows], **keys}
    order = pc.sort_indices(pa.table(keys), sort_keys=[(name, "ascending") for name in keys])
    record = np.full(len(identity), -1)
    record[rows[order.to_numpy()]] = np.arange(len(rows))
    return record


def _count(labels: np.ndarray) -> int:
    return int(labels.max(initial=-1)) + 1


def _optional(distances: np.ndarray) -> pa.Array:
    return _nullable(distances, np.isnan(distances))


def _nullable(values: np.ndarray, missing: np.ndarray) -> pa.Array:
    return pa.array(values, mask=missing)
