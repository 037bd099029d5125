"""From per-video results to one data set: level 3, noise and scores of every level, selection, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cion_jax.common.progress import progress
from cion_jax.neighbors import cosine, score
from cion_jax.neighbors.labels import numbered
from data_prep.config import Config
from data_prep.denoise import nearest_member, noise
from data_prep.denoise.levels import Levels
from data_prep.denoise.method import METHODS, Clustering, Labeling
from data_prep.denoise.settings import Thresholds
from data_prep.output.provenance import ACTIONS, DISCARDED, KEPT, LEVELS, MOVED, PROVENANCE
from data_prep.pipeline.image_table import ImageTable
from data_prep.pipeline.select import select

WITHIN, ACROSS = LEVELS[:-1], LEVELS[-1]
"""Levels whose identities lie within one video each, and the one that joins videos."""


@dataclass(frozen=True)
class Aggregated:
    """The data set after all levels; see `provenance.RunResult` for the fields of the same name."""

    provenance: pa.Table
    levels: list[dict[str, Any]]
    selection: dict[str, Any]
    clustering: Clustering | None


def aggregate(table: ImageTable, config: Config, thresholds: Thresholds) -> Aggregated:
    """Finds the identities and measures every level; features are read three times."""
    settings = config.denoising
    labeling = METHODS[settings.method].all_videos(table, settings, thresholds)
    shape = len(table.tracklets), table.width
    within = {name: noise.WithinVideos(table.room(shape, np.float64), thresholds.sigma_cst) for name in WITHIN}
    done = table.levels(_video_by_video(table, labeling, within))
    identity = labeling.identities(done, within["single_video"].means)
    joined = _joined(done.identity, identity, within["single_video"].means, settings.search.group_sample)
    levels = []
    for name, labels in _groups(table.tracklet, done).items():
        of = within.pop(name)
        found = noise.total(of.means, of.noisy, thresholds.sigma_drm, settings.search)
        levels.append(_measured(name, table, labels, found))
    means = cosine.centroids(table.labeled(identity), _count(identity))
    found, distance = noise.measure(table.labeled(identity), means, thresholds, settings.search)
    levels.append(_measured(ACROSS, table, identity, found))
    columns = {**_level_columns(table, done), "level3_joined": _optional(joined), "distance": _optional(distance)}
    if labeling.confidence is not None:
        columns["confidence"] = _nullable(labeling.confidence, identity < 0)
    provenance, selection = _selected(table, identity, columns, config)
    return Aggregated(provenance, levels, selection, labeling.clustering)


def _video_by_video(
    table: ImageTable, labeling: Labeling, within: Mapping[str, noise.WithinVideos]
) -> Iterator[Levels]:
    """What levels 1 and 2 did with every video, whose identities of all levels up to 2 are measured on the way."""
    labeled = progress(table.labeled(table.tracklet), "levels and noise within videos", len(table.videos))
    for video, (features, tracklet) in enumerate(labeled):
        done, x = labeling.levels(video, features), cosine.unit(features)
        for name, labels in _groups(tracklet - tracklet[0], done).items():
            within[name].add(x, labels)
        yield done


def _groups(tracklet: np.ndarray, done: Levels) -> dict[str, np.ndarray]:
    """Identities at the levels `WITHIN`, of one video or of all."""
    return dict(zip(WITHIN, (tracklet, np.where(done.round == 0, tracklet, -1), done.identity), strict=True))


def aggregate_identified(table: ImageTable, config: Config, thresholds: Thresholds) -> Aggregated:
    """Takes the identities that the source knows; noise is measured where there are features."""
    truth, known = table.truth()
    known &= truth >= 0
    identity = np.full(len(truth), -1)
    identity[known] = numbered(truth[known])
    means = cosine.centroids(table.labeled(identity), _count(identity))
    level: dict[str, Any] = {"name": "input", "images": int(known.sum()), "identities": len(means)}
    columns: dict[str, Any] = {}
    if means.shape[1]:
        found, distance = noise.measure(table.labeled(identity), means, thresholds, config.search)
        level |= _noise(found)
        columns["distance"] = _optional(distance)
    provenance, selection = _selected(table, identity, columns, config)
    return Aggregated(provenance, [level], selection, None)


def _joined(before: np.ndarray, after: np.ndarray, means: np.ndarray, most: int) -> np.ndarray:
    """[N] distance of every image's identity of level 2 to the nearest other that level 3 joined it with."""
    group = np.full(len(means), -1)
    group[before[before >= 0]] = after[before >= 0]
    return np.append(nearest_member.nearest(means, group, most), np.nan)[before]


def _measured(name: str, table: ImageTable, labels: np.ndarray, found: noise.Noise) -> dict[str, Any]:
    truth, known = table.truth()
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
        "noise": found.per_identity,
        "consistency_noise": found.consistency / each,
        "discrimination_noise": found.discrimination / each,
    }
    if found.compared == found.identities:
        return kinds
    return {**kinds, "discrimination_compared": found.compared, "discrimination_error": found.error / each}


def _level_columns(table: ImageTable, done: Levels) -> dict[str, Any]:
    """Columns of the provenance that levels 1 and 2 fill."""
    codes = {name: i for i, name in enumerate(ACTIONS)}
    action = np.where(done.tracklet >= 0, codes[MOVED], codes[DISCARDED])
    action[done.round == 0] = codes[KEPT]
    names = pa.array(table.tracklets, pa.string())
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
    table: ImageTable, identity: np.ndarray, columns: Mapping[str, Any], config: Config
) -> tuple[pa.Table, dict[str, Any]]:
    """Selects, numbers the identities that are written before the others, and completes the provenance."""
    selected, dropped = select(identity, table.tracklet, config)
    identity, written = _renumbered(identity, selected)
    record = _records(table.table, identity, selected)
    known = {name: table.table[name] for name in PROVENANCE.names if name in table.table.column_names}
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
