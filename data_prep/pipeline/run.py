"""The whole run: per-video stages as Beam transforms, then level 3, selection, shards, report.

What crosses a stage's border are video keys; references and features lie in files, pixels nowhere but in the encoded
crops. Every stage skips the videos that are done, so a run that was stopped continues where it was.
"""

from __future__ import annotations

import collections
import functools
import itertools
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from array_record.python.array_record_module import ArrayRecordReader

from cion_jax.common import checksums
from cion_jax.common.files import finished
from cion_jax.data import records
from data_prep import doctor, embedders, sources
from data_prep.config import Config
from data_prep.denoise.calibrate import Calibration
from data_prep.denoise.method import METHODS
from data_prep.denoise.settings import Thresholds
from data_prep.output import croissant, dataset_card, doubts, faces, shards
from data_prep.output.dataset import read_metrics
from data_prep.output.provenance import RunResult, images_at
from data_prep.output.rejects import told
from data_prep.output.report import page
from data_prep.pipeline import beam, inputs, per_video
from data_prep.pipeline.aggregate import Aggregated, aggregate, aggregate_identified
from data_prep.pipeline.cache import Cache
from data_prep.pipeline.given import GivenFeatures
from data_prep.pipeline.image_table import ImageTable
from data_prep.pipeline.thresholds import as_set, calibrated
from data_prep.pipeline.workdir import InputChangedError, OutputError, Work, flat
from data_prep.types import Image, Reject, Source, is_text

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """What was asked for on the command line.

    Attributes:
      source: name of the input format.
      input: its folder or file.
      embedder: as `embedders.open` takes it; None only where the source knows the identities.
      output: the folder that becomes the data set.
      config: everything else.
      beam: flags of Apache Beam; they say where a run takes place and have no part in its result.
      features: file of features that are taken instead of an embedder's; see `GivenFeatures`.
      cache: folder of crops and features that runs with other outputs share.
      update: whether an output whose settings or input have changed is written again.
    """

    source: str
    input: str
    embedder: str | None
    output: Path
    config: Config
    beam: tuple[str, ...] = ()
    features: str | None = None
    cache: Path | None = None
    update: bool = False

    def open_source(self) -> Source:
        """Opens the input; raises SourceError."""
        return sources.open(self.source, self.input, **sources.options(self.source, self.config))

    def open_extractor(self) -> per_video.Extractor:
        """Opens what features come from; raises EmbedderError, FeaturesError, or RunError where that is not said."""
        if self.embedder and self.features:
            raise beam.RunError("give --embedder or --features, not both")
        if self.features:
            return GivenFeatures(self.features)
        return None if self.embedder is None else embedders.open(self.embedder)


def run(job: Job) -> dict[str, Any]:
    """Runs or continues a job.

    Videos whose input has changed since they were done are done again.

    Returns:
      The content of ``metrics.json``.

    Raises:
      SourceError, EmbedderError, FeaturesError, FacesError: nothing could be started.
      OutputError: the output is something else's, or finished and of other settings or another input.
      InUseError: another run works in the output.
      RunError: a video failed, or nothing is left to write. What is done is kept.
    """
    with Work(job.output).held():
        return _run(job)


def _run(job: Job) -> dict[str, Any]:
    source, extractor = job.open_source(), job.open_extractor()
    if extractor is None and not source.identified:
        kinds = ", ".join(embedders.kinds())
        raise beam.RunError(f"source {job.source!r} needs an extractor; give --embedder as one of {kinds}")
    if not source.identified and Path(job.input).resolve() in job.output.resolve().parents:
        raise OutputError(
            f"--output={job.output} lies within --input={job.input}: what is written would be read as input; give a "
            "folder outside"
        )
    doctor.check(source)
    if job.config.blur_faces:
        faces.Blur()  # it had better fail now
    work, digest = Work(job.output), extractor.digest if extractor else ""
    settings = _settings(job, digest)
    videos = [video for video in source.videos() if is_text(video)]
    nameless = [_nameless(video) for video in source.videos() if not is_text(video)]
    if work.claim(settings, job.update) and _unchanged(job, work, source, videos, digest):
        return read_metrics(job.output / records.METRICS_FILE)
    work.forget(inputs.changes(work, source, videos, digest, job.config, whole=False))
    beam.each_video("reading and embedding", work, videos, "arrow", functools.partial(_embedding, job), job.beam)
    usable, rejects = _same_width(work, videos)
    rejected = _rejected(work, videos, [*source.rejected, *nameless, *rejects])
    table = ImageTable.load(work, source.timed, job.config.cooccurrence, usable)
    if not len(table.table):
        raise beam.RunError(_nothing(job, rejected))
    calibration = as_set(job.config) if source.identified else calibrated(table, job.config)
    if not source.identified:
        each_video(job, work, usable, calibration.thresholds)
    found = (aggregate_identified if source.identified else aggregate)(table, job.config, calibration.thresholds)
    if not work.made_with("shards", {"settings": settings, "videos": inputs.stamps(work)}):
        (job.output / records.INFO_FILE).unlink(missing_ok=True)
    return _write(job, digest, calibration, found, rejected, Crops(source, work, job.config.blur_faces))


def _unchanged(job: Job, work: Work, source: Source, videos: Sequence[str], digest: str) -> bool:
    """Whether a finished run's input is what it was; raises InputChangedError where it is not and none is updated."""
    changes = inputs.changes(work, source, videos, digest, job.config, whole=True)
    if changes and not job.update:
        raise InputChangedError(job.output, inputs.told(changes, len(videos)))
    return not changes


def _nothing(job: Job, rejected: Mapping[str, int]) -> str:
    """Why there is nothing to denoise, with an example of everything that was set aside."""
    aside = "".join(f"\n  {line}" for line in told(job.output, rejected)) or " nothing"
    return (
        f"no usable image in {job.input}; expected {sources.layout(job.source)}; set aside:{aside}\n"
        f"all of them are listed in {job.output / records.REJECTED_FILE}"
    )


class Crops:
    """JPEG bytes of images: the source's own files, else (and always where faces are blurred) what was encoded."""

    def __init__(self, source: Source, work: Work, encoded: bool):
        self._source, self._work, self._encoded = source, work, encoded
        self._video = functools.lru_cache(maxsize=256)(self._open)

    def __call__(self, image: Image) -> bytes:
        """JPEG bytes of one image of the run."""
        own = None if self._encoded else self._source.jpeg(image)
        if own is not None:
            return own
        reader, numbers = self._video(image.video)
        return reader.read([numbers[image.key]])[0]

    def _open(self, video: str) -> tuple[ArrayRecordReader, dict[str, int]]:
        table = per_video.read_table(self._work.file(video, "arrow"))
        numbers = dict(zip(table["key"].to_pylist(), table["crop"].to_pylist(), strict=True))
        return ArrayRecordReader(str(self._work.file(video, "crops"))), numbers


def _settings(job: Job, digest: str) -> dict[str, Any]:
    """What makes two runs the same; where the output lies and who computes it does not matter."""
    settings = asdict(job)
    for name in ("output", "beam", "cache", "update"):
        del settings[name]
    return {**settings, "embedder_digest": digest, "work_format": inputs.WORK_FORMAT}


def _embedding(job: Job) -> Callable[[str], None]:
    source, extractor, work = job.open_source(), job.open_extractor(), Work(job.output)
    cache = None if job.cache is None else Cache(job.cache)
    return lambda video: per_video.embed(source, extractor, work, video, job.config, cache)


def each_video(job: Job, work: Work, videos: Sequence[str], thresholds: Thresholds) -> None:
    """What of the denoising looks at one video alone."""
    method = METHODS[job.config.denoising.method]
    # Thresholds may be estimated from all videos, of which some may have changed.
    made = {"thresholds": asdict(thresholds), "denoising": asdict(job.config.denoising)}
    if not work.made_with(method.keeps, made):
        for video in videos:
            work.file(video, method.keeps).unlink(missing_ok=True)
    prepare = functools.partial(denoising, job, thresholds)
    beam.each_video(method.stage, work, videos, method.keeps, prepare, job.beam)


def denoising(job: Job, thresholds: Thresholds) -> Callable[[str], None]:
    """Prepares that on one worker: what does it for one video."""
    work, timed, settings = Work(job.output), job.open_source().timed, job.config.denoising
    return lambda video: per_video.denoise(work, video, settings, thresholds, timed)


def _nameless(video: str) -> Reject:
    return Reject("name is no text", video, "a whole video; expected a name in UTF-8; rename it")


def _same_width(work: Work, videos: Sequence[str]) -> tuple[list[str], list[Reject]]:
    """Videos with features of the most common width; the images of the others are rejected."""
    widths = {}
    for video in videos:
        rows, width = work.shape(video)
        if rows:
            widths[video] = width
    usual = collections.Counter(widths.values()).most_common(1)
    usable, rejects = [], []
    for video, width in widths.items():
        if width == usual[0][0]:
            usable.append(video)
            continue
        keys = per_video.read_table(work.file(video, "arrow"))["key"].to_pylist()
        detail = f"{width} features, expected {usual[0][0]} as in most videos"
        rejects += [Reject("wrong width of features", key, detail) for key in keys]
    return usable, rejects


def _rejected(work: Work, videos: Sequence[str], others: Sequence[Reject]) -> dict[str, int]:
    """Lists everything that was set aside in one file; returns how often by reason."""
    counts: collections.Counter[str] = collections.Counter()
    with finished(work.output / records.REJECTED_FILE) as part, part.open("w", encoding="utf-8") as file:
        written = (work.file(video, "rejected").open(encoding="utf-8") for video in videos)
        for line in itertools.chain((reject.line() for reject in others), itertools.chain.from_iterable(written)):
            counts[json.loads(line)["reason"]] += 1
            file.write(line)
    return dict(sorted(counts.items()))


def _write(
    job: Job, digest: str, calibration: Calibration, found: Aggregated, rejected: dict[str, int], crops: Crops
) -> dict[str, Any]:
    """Shards, report, card and, last of all, metrics: where they are, the run has finished."""
    record = found.provenance["record"].fill_null(-1).to_numpy()
    selected = np.argsort(record)[np.count_nonzero(record < 0) :]  # in the order of the records, so not sorted again
    images = images_at(found.provenance, selected)
    if not images:
        raise beam.RunError(
            f"no image is left to write: {found.selection['not_selected']}; see config.min_identity_images"
        )
    result = RunResult(
        images=found.provenance,
        levels=found.levels,
        calibration=calibration,
        method=job.config.denoising.method,
        clustering=found.clustering,
        selection=found.selection,
        rejected=rejected,
        embedder=job.embedder or job.features or "",
        embedder_digest=digest,
        source=job.source,
        input=job.input,
        settings=dict(flat(asdict(job.config))),
        jpeg_of=crops,
    )
    if not (job.output / records.INFO_FILE).exists():
        identities = found.provenance["identity"].take(selected).to_numpy()
        shards.write(job.output, images, identities, crops, found.provenance)
    for doubt in doubts.told(result):
        _LOG.warning("%s", doubt)
    page.write(job.output, result)
    dataset_card.write(job.output, result)
    croissant.write(job.output, result)
    metrics = {
        "levels": result.levels,
        "thresholds": result.thresholds,
        "method": result.method,
        "certificate": doubts.certificate(result),
        "doubts": doubts.told(result),
        "calibration": {"calibrated": calibration.calibrated, "different people": calibration.different_people},
        "selection": result.selection,
        "rejected": result.rejected,
        "source": {"name": result.source, "input": result.input},
        "embedder": {"name": result.embedder, "sha256": result.embedder_digest},
        "settings": result.settings,
    }
    _finish(job.output, metrics)
    return metrics


def _finish(output: Path, metrics: Mapping[str, Any]) -> None:
    """Digests of everything that was written, and the metrics last of all."""
    with finished(output / records.METRICS_FILE) as part:
        text = json.dumps(metrics, indent=1, ensure_ascii=False) + "\n"
        part.write_text(text, "utf-8", errors="backslashreplace")
        files = {path.name: path for path in output.iterdir() if path.is_file() and not path.name.startswith(".")}
        files |= {records.METRICS_FILE: part}
        checksums.write(
            output / checksums.SUMS, {name: files[name] for name in sorted(files.keys() - {checksums.SUMS})}
        )
