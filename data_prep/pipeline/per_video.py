"""What happens to one video: crops to features, features to levels 1 and 2. Each stage leaves files behind."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from array_record.python.array_record_module import ArrayRecordWriter

from cion_jax.common.files import finished
from cion_jax.common.images import encode_jpeg
from cion_jax.neighbors.linkage import NO_PAIRS, Pairs
from data_prep.config import Config
from data_prep.denoise import cooccurrence
from data_prep.denoise.method import METHODS
from data_prep.denoise.settings import CooccurrenceSettings, Denoising, Thresholds
from data_prep.embedders import EmbedderError
from data_prep.output import faces
from data_prep.output.provenance import PROVENANCE
from data_prep.output.shards import array_records
from data_prep.pipeline import inputs
from data_prep.pipeline.cache import Cache
from data_prep.pipeline.given import GivenFeatures
from data_prep.pipeline.workdir import Work, whole
from data_prep.types import Embedder, Image, Reject, Source, is_text

Extractor = Embedder | GivenFeatures | None
# Columns of a video's references: those of the provenance that the source fills, and the number of the
# encoded crop in the video's crops file (-1: the source has the image as a JPEG file).
_FROM_SOURCE = ("key", "video", "tracklet", "frame", "path", "box", "truth")
REFERENCES = pa.schema([PROVENANCE.field(name) for name in _FROM_SOURCE] + [pa.field("crop", pa.int64())])


def embed(
    source: Source,
    extractor: Extractor,
    work: Work,
    video: str,
    config: Config,
    cache: Cache | None = None,
) -> None:
    """Reads one video and writes references, features, crops and rejects; references last.

    Args:
      source: where the video lies.
      extractor: crops -> features; None where nobody asks for features.
      work: where the files go.
      video: key of the video.
      config: how long a tracklet may be.
      cache: where the files may be already, and are kept for other runs.

    Raises:
      EmbedderError: the embedder gave something that is not one row of features per crop.
    """
    images, rejects, stamp = inputs.read(source, video, extractor.digest if extractor else "", config)
    inputs.save(work, stamp)
    work.file(video, "met").unlink(missing_ok=True)
    if cache is None:
        _embed(source, extractor, work, video, config, images, rejects)
    elif not cache.fetch(stamp, work):
        _embed(source, extractor, work, video, config, images, rejects)
        cache.store(stamp, work)


def _embed(
    source: Source,
    extractor: Extractor,
    work: Work,
    video: str,
    config: Config,
    images: Sequence[Image],
    rejects: list[Reject],
) -> None:
    seen = distinct(images, rejects)
    images = _thinned(seen, config.max_tracklet_images, rejects)
    if isinstance(extractor, GivenFeatures):
        images = _known(images, extractor, rejects)
    taken: dict[Image, int] = {}
    with contextlib.ExitStack() as stack:
        store = _CropStore(work.file(video, "crops"), stack, faces.Blur() if config.blur_faces else None)
        features = _features(extractor, _crops(source, images, store, taken, rejects), taken)
    if len(features) != len(taken):
        raise EmbedderError(
            f"{len(taken)} crops of video {video!r} gave features of shape {features.shape}, expected one row each"
        )
    keep = _usable(features, list(taken), rejects)
    row = {image: i for i, image in enumerate(taken)}
    kept = [image for image in images if image in row and keep[row[image]]]
    with finished(work.file(video, "rejected")) as part:
        part.write_text("".join(reject.line() for reject in rejects), "utf-8")
    array = io.BytesIO()
    np.save(array, features[[row[image] for image in kept]])  # straight to the file it would not say why it fails
    with finished(work.file(video, "npy")) as part:
        part.write_bytes(array.getbuffer())
    if source.timed:
        _write_arrays(work.file(video, "boxes"), boxes(seen, kept))
    write_table(work.file(video, "arrow"), references(kept, [taken[image] for image in kept]))


def denoise(work: Work, video: str, settings: Denoising, thresholds: Thresholds, timed: bool) -> None:
    """Runs what the method can do with one video alone, and writes what it keeps; `timed` is the source's."""
    method = METHODS[settings.method]
    table = read_table(work.file(video, "arrow"))
    _, tracklet = tracklets(table)

    def cannot() -> Pairs:
        return cooccurring(work, video, tracklet, timed and settings.cannot_link, settings.cooccurrence)

    found = method.one_video(work.features(video), tracklet, cannot, settings, thresholds)
    _write_arrays(work.file(video, method.keeps), found)


def cooccurring(work: Work, video: str, tracklet: np.ndarray, timed: bool, settings: CooccurrenceSettings) -> Pairs:
    """Pairs of images of one video that cannot show one person, from all its boxes and the images' tracklets [m].

    Where frame numbers are no times there are none. They are kept, for a crowd on many frames takes a while. See
    `denoise.cooccurrence`.
    """
    if not timed:
        return NO_PAIRS
    path, asked = work.file(video, "met"), np.array([settings.min_frames, settings.max_iou])
    if whole(path):
        with np.load(path) as met:
            if np.array_equal(met["settings"], asked):
                return met["i"], met["j"]
    with np.load(work.file(video, "boxes")) as seen:
        frame, box, image = seen["frame"], seen["box"], seen["image"]
    i, j = cooccurrence.cooccurring(frame, tracklet[image], box, settings, image)
    _write_arrays(path, {"settings": asked, "i": i, "j": j})
    return i, j


def boxes(seen: Sequence[Image], kept: Sequence[Image]) -> dict[str, np.ndarray]:
    """What co-occurrence goes by: `frame` [b] int64 and `box` [b, 4] (nan: unknown) of all boxes of known frames whose
    tracklet has kept images of such, and `image` [b] int64, which of the kept images stands for them."""
    row = {image: i for i, image in enumerate(kept) if image.frame >= 0}
    names = {name: i for i, name in enumerate(dict.fromkeys(image.tracklet for image in row))}
    known = [image for image in seen if image.frame >= 0 and image.tracklet in names]
    frame = np.array([image.frame for image in known], np.int64)
    tracklet = np.array([names[image.tracklet] for image in known], np.int64)
    box = np.array([image.box or (np.nan,) * 4 for image in known], np.float64).reshape(-1, 4)
    at = np.array([i for i, image in enumerate(known) if image in row], np.int64)
    rows = np.array([row[known[i]] for i in at.tolist()], np.int64)
    return {"frame": frame, "box": box, "image": rows[cooccurrence.nearest_kept(frame, tracklet, at)]}


def _write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    with finished(path) as part, part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def references(images: Sequence[Image], crops: Sequence[int]) -> pa.Table:
    """A table of the schema `REFERENCES`."""
    columns = {name: [getattr(image, name) for image in images] for name in _FROM_SOURCE}
    return pa.table({**columns, "crop": crops}, schema=REFERENCES)


def tracklets(table: pa.Table) -> tuple[list[str], np.ndarray]:
    """Names of the tracklets of one video in their order, and the number of each image's, [m] int64."""
    column = table["tracklet"].combine_chunks()
    return column.dictionary.to_pylist(), column.indices.to_numpy().astype(np.int64)


def write_table(path: Path, table: pa.Table) -> None:
    """Writes an Arrow file, complete or not at all."""
    with finished(path) as part, pa.OSFile(str(part), "wb") as file, pa.ipc.new_file(file, table.schema) as out:
        out.write_table(table)


def read_table(path: Path) -> pa.Table:
    """Reads an Arrow file."""
    with pa.OSFile(str(path), "rb") as file:
        return pa.ipc.open_file(file).read_all()


def _known(images: Sequence[Image], given: GivenFeatures, rejects: list[Reject]) -> list[Image]:
    missing = [image for image in images if not given.knows(image)]
    detail = f"{given.name} has neither this key nor the path"
    rejects += [Reject("no features given", image.key, f"{detail} {image.path}") for image in missing]
    return [image for image in images if given.knows(image)]


def distinct(images: Sequence[Image], rejects: list[Reject]) -> list[Image]:
    """Images whose names are texts and whose keys are their own; the others are added to the rejects."""
    first: dict[str, Image] = {}
    for image in images:
        if not is_text("".join((image.key, image.video, image.tracklet, image.path))):
            rejects.append(Reject("name is no text", image.key, "expected a name in UTF-8; rename the file"))
        elif image.key in first:
            rejects.append(Reject("duplicate key", image.key, f"{image.path} after {first[image.key].path}"))
        else:
            first[image.key] = image
    return list(first.values())


def _thinned(images: Sequence[Image], most: int, rejects: list[Reject]) -> list[Image]:
    """Keeps at most `most` images of each tracklet, first and last included, at even steps."""
    groups: dict[str, list[Image]] = {}
    for image in images:
        groups.setdefault(image.tracklet, []).append(image)
    kept = []
    for group in groups.values():
        steps = np.linspace(0, len(group) - 1, min(most, len(group))).round().astype(int).tolist()
        chosen = {group[i] for i in steps}
        kept += [image for image in group if image in chosen]
        detail = f"one of {len(group)} images of its tracklet, of which {most} are kept"
        rejects += [Reject("thinned tracklet", i.key, detail) for i in group if i not in chosen]
    return kept


class _CropStore:
    """Numbers and writes encoded crops, with blurred faces where these are asked for; without any there is no file."""

    def __init__(self, path: Path, stack: contextlib.ExitStack, blur: faces.Blur | None):
        self._path, self._stack, self._stored, self.blur = path, stack, 0, blur

    @functools.cached_property
    def _writer(self) -> ArrayRecordWriter:
        part = self._stack.enter_context(finished(self._path))
        return self._stack.enter_context(array_records(part))

    def add(self, crop: np.ndarray) -> int:
        self._writer.write(encode_jpeg(crop if self.blur is None else self.blur(crop)))
        self._stored += 1
        return self._stored - 1


def _crops(
    source: Source,
    images: Sequence[Image],
    store: _CropStore,
    taken: dict[Image, int],
    rejects: list[Reject],
) -> Iterator[np.ndarray]:
    """Yields crops as they are decoded; `taken` learns each one's number in the crops file, -1 where not stored."""
    for image, crop in source.crops(images):
        if isinstance(crop, Reject):
            rejects.append(crop)
            continue
        taken[image] = store.add(crop) if store.blur or source.jpeg(image) is None else -1
        yield crop


def _features(extractor: Extractor, crops: Iterator[np.ndarray], taken: Mapping[Image, int]) -> np.ndarray:
    if extractor is None or isinstance(extractor, GivenFeatures):
        count = sum(1 for _ in crops)
        return np.zeros((count, 0), np.float32) if extractor is None else extractor.of(list(taken))
    return np.asarray(extractor(crops), np.float32)


def _usable(features: np.ndarray, images: Sequence[Image], rejects: list[Reject]) -> np.ndarray:
    """[n] bool; the rest is rejected."""
    finite = np.isfinite(features).all(axis=1)
    zero = finite & ~features.any(axis=1) & (features.shape[1] > 0)
    for reason, bad in (("features not finite", ~finite), ("features all zero", zero)):
        rejects += [Reject(reason, images[i].key, f"from {images[i].path}") for i in np.flatnonzero(bad).tolist()]
    return finite & ~zero
