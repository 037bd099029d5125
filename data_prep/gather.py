"""From per-video results to one data set: level 3, noise and scores of every level, selection, provenance."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cion_jax.progress import progress
from data_prep import stages
from data_prep.config import Config, Limits
from data_prep.denoise import cosine, cross_video, noise, score
from data_prep.denoise.per_video import Levels
from data_prep.result import ACTIONS, DISCARDED, KEPT, LEVELS, MOVED, PROVENANCE
from data_prep.select import select
from data_prep.work import Work

_SAMPLES = 20_000  # of a histogram


@dataclass(frozen=True)
class Collection:
    """All images of a data set, videos one after another in sorted order.

    Attributes:
      work: where the files of the videos are.
      videos: their keys.
      table: [N] rows of `stages.REFERENCES`.
      starts: [videos + 1] first row of every video, and N.
      tracklet: [N] int64, numbered over the data set.
      tracklets: names of all tracklets, by number.
    """

    work: Work
    videos: Sequence[str]
    table: pa.Table
    starts: np.ndarray
    tracklet: np.ndarray
    tracklets: Sequence[str]

    @classmethod
    def load(cls, work: Work, videos: Sequence[str]) -> Collection:
        """Reads the references of these videos."""
        tables = [stages.read_table(work.file(video, "arrow")) for video in videos]
        names: list[str] = []
        numbers = [np.zeros(0, np.int64)]
        for table in tables:
            own, local = stages.tracklets(table)
            numbers.append(local + len(names))
            names += own
        starts = np.cumsum([0, *(len(table) for table in tables)])
        table = pa.concat_tables([stages.REFERENCES.empty_table(), *tables]).unify_dictionaries()
        return cls(work, videos, table, starts, np.concatenate(numbers), names)

    def truth(self) -> tuple[np.ndarray, np.ndarray]:
        """[N] true identities (0 where unknown), and [N] bool where they are known."""
        column = self.table["truth"]
        return column.fill_null(0).to_numpy(), column.is_valid().to_numpy()

    def parts(self, labels: np.ndarray) -> cosine.Parts:
        """Features of all videos with these labels [N], read when they are iterated over."""
        return _Parts(self, labels)

    def levels(self) -> Levels:
        """What levels 1 and 2 did, tracklets and identities numbered over the data set."""
        pieces: dict[str, list[np.ndarray]] = {field.name: [] for field in fields(Levels)}
        identities = 0
        for video, start in zip(self.videos, self.starts[:-1], strict=True):
            with np.load(self.work.file(video, "levels")) as arrays:
                own = Levels(**arrays)
            first = self.tracklet[start] if len(own.round) else 0
            own = replace(
                own,
                tracklet=np.where(own.tracklet >= 0, own.tracklet + first, -1),
                identity=np.where(own.identity >= 0, own.identity + identities, -1),
            )
            identities = max(identities, own.identity.max(initial=-1) + 1)
            for name, piece in pieces.items():
                piece.append(getattr(own, name))
        return Levels(**{name: np.concatenate(piece) for name, piece in pieces.items()})


@dataclass(frozen=True)
class _Parts:
    collection: Collection
    labels: np.ndarray

    def __iter__(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        of = self.collection
        for video, start, end in zip(of.videos, of.starts[:-1], of.starts[1:], strict=True):
            if end > start:
                yield np.load(of.work.file(video, "npy"), mmap_mode="r"), self.labels[start:end]


@dataclass(frozen=True)
class Gathered:
    """The data set after all levels; see `result.RunResult` for the fields of the same name."""

    provenance: pa.Table
    levels: list[dict[str, Any]]
    selection: dict[str, Any]
    image_distances: np.ndarray
    centroid_distances: np.ndarray


def gather(collection: Collection, config: Config) -> Gathered:
    """Runs level 3 and measures every level."""
    limits, done = config.limits, collection.levels()
    labels = {
        "input": collection.tracklet,
        "single_tracklet": np.where(done.round == 0, collection.tracklet, -1),
        "single_video": done.identity,
    }
    levels: list[dict[str, Any]] = []
    means: dict[str, np.ndarray] = {}
    for name in progress(LEVELS, "level 3, noise and scores"):
        if name == "cross_video":
            linked = cross_video.link(means["single_video"], limits.sigma_drm, limits.r_s)
            labels[name] = np.where(done.identity >= 0, linked[done.identity], -1)
        means[name] = cosine.centroids(collection.parts(labels[name]), _count(labels[name]))
        levels.append(_measured(name, collection, labels[name], means[name], limits))
    columns = _level_columns(collection, done)
    provenance, selection = _selected(collection, labels["cross_video"], columns, config)
    samples = _samples(collection, means["input"])
    return Gathered(provenance, levels, selection, *samples)


def gather_identified(collection: Collection, config: Config) -> Gathered:
    """Takes the identities that the source knows; noise is measured where there are features."""
    truth, known = collection.truth()
    known &= truth >= 0
    identity = np.full(len(truth), -1)
    identity[known] = _by_first_appearance(truth[known])
    means = cosine.centroids(collection.parts(identity), _count(identity))
    level: dict[str, Any] = {"name": "input", "images": int(known.sum()), "identities": len(means)}
    if means.shape[1]:
        level |= _noise(collection, identity, means, config.limits)
    provenance, selection = _selected(collection, identity, {}, config)
    return Gathered(provenance, [level], selection, np.zeros(0), np.zeros(0))


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


def _samples(collection: Collection, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Random images' distances to the centroid of their tracklet, and random pairs' of centroids."""
    rng = np.random.default_rng(0)
    count = len(collection.tracklet)
    chosen = np.zeros(count, bool)
    chosen[rng.choice(count, min(_SAMPLES, count), replace=False)] = True
    images = [
        cosine.to_own_centroid(features[labels >= 0], labels[labels >= 0], means)
        for features, labels in collection.parts(np.where(chosen, collection.tracklet, -1))
    ]
    i, j = rng.integers(0, max(len(means), 1), (2, _SAMPLES if len(means) > 1 else 0))
    i, j = i[i != j], j[i != j]
    pairs = cosine.distance(np.einsum("nd,nd->n", cosine.unit(means[i]), cosine.unit(means[j])))
    return np.concatenate([np.zeros(0), *images]), pairs


def _by_first_appearance(values: np.ndarray) -> np.ndarray:
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse]


def _count(labels: np.ndarray) -> int:
    return int(labels.max(initial=-1)) + 1


def _nullable(values: np.ndarray, missing: np.ndarray) -> pa.Array:
    return pa.array(values, mask=missing)
