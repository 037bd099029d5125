"""``report.html``: what the run did, in numbers, charts and pictures, in one file that needs nothing else."""

from __future__ import annotations

import base64
import collections
import dataclasses
from pathlib import Path

import cv2
import numpy as np

from cion_jax.common import images
from cion_jax.common.files import write_text
from cion_jax.data import records
from data_prep.output import doubts, rejects
from data_prep.output.provenance import RunResult, images_at
from data_prep.output.report import cases as cases_of
from data_prep.output.report import charts, levels, view
from data_prep.output.report.cases import Case, Cases, Columns
from data_prep.output.report.charts import Panel
from data_prep.output.report.view import Crop, Page, Section, Strip, Table
from data_prep.types import Image

SHOWN = 12  # cases of each kind
THUMBNAIL = 96  # pixels high, at most twice as wide
EXAMPLES = 3  # rejected inputs that are listed for every reason


def write(folder: Path, run: RunResult) -> None:
    """Writes the report into an identity-shard folder.

    Which cases are shown is a function of the run and its seed. A picture that cannot be read any more is shown
    as missing.

    Args:
      folder: identity shards; its list of rejected inputs is quoted where there is one.
      run: what the run knows.
    """
    columns = Columns(run.images)
    sections = [
        _doubts(run),
        levels.section(run.levels, run.selection),
        _distances(run),
        *_montages(run, columns),
        _rejected(folder, run),
    ]
    settings = {"extractor digest": run.embedder_digest or "none", **run.settings}
    page = Page(
        title=f"Identity shards from {run.source}",
        lead=f"{run.source} from {run.input}, extractor {run.embedder or 'none'}",
        tiles=_tiles(run, columns),
        sections=[section for section in sections if section is not None],
        settings=Table(("setting", "value"), [(name, str(value)) for name, value in settings.items()], words=True),
    )
    write_text(folder / records.REPORT_FILE, view.render(page))


def _tiles(run: RunResult, columns: Columns) -> list[tuple[str, str]]:
    first, last, selection = run.levels[0], run.levels[-1], run.selection
    images, identities = selection["images"], selection["identities"]
    numbers = [
        (f"{images:,}", "images written"),
        (f"{identities:,}", "identities written"),
        (f"{images / max(identities, 1):.1f}", "images per identity"),
        (f"{len(run.images):,}", "images read"),
        (f"{len(np.unique(columns.tracklet)):,}", "tracklets read"),
        (f"{len(np.unique(columns.video)):,}", "videos read"),
    ]
    if len(run.levels) > 1:
        numbers.append((f"{first['noise']:.3g} → {last['noise']:.3g}", "noise, before → after"))
    if "pairwise_f1" in last and len(run.levels) > 1:
        change = f"{first['pairwise_f1']:.3f} → {last['pairwise_f1']:.3f}"
        numbers.append((change, "pairwise F1 against the truth"))
    if run.certificate is not None:
        for name, found in (("precision", run.certificate.precision), ("recall", run.certificate.recall)):
            numbers.append((f"{found.low:.2f} – {found.high:.2f}", f"pairwise {name}, estimated without labels"))
    return numbers


def _doubts(run: RunResult) -> Section | None:
    found = doubts.told(run)
    if not found and run.certificate is None:
        return None
    text = (
        "" if run.certificate is None else f"Estimated without labels, over pairs of images: {run.certificate.told()}. "
    )
    count = f"{len(found)} doubt" + ("" if len(found) == 1 else "s")
    return Section("How right it is", count, text + " ".join(found))


def _distances(run: RunResult) -> Section | None:
    calibration, clustering = run.calibration, run.clustering
    if not len(calibration.samples.image):
        return None
    text = (
        "Distances of the input: below the left threshold an image is like its tracklet, below the middle one two "
        "tracklets look like one person. Thresholds suit an extractor where they part its two kinds of distances."
    )
    panels = [
        Panel("Image to the rest of its tracklet", "σ_cst", calibration.thresholds.sigma_cst),
        Panel("Between centroids of tracklets", "σ_drm", calibration.thresholds.sigma_drm),
    ]
    samples = calibration.samples
    values = [(samples.image, samples.image_apart), (samples.centroid, samples.centroid_apart)]
    if clustering is not None:
        panels.append(Panel("Shared neighborhood", "overlap", clustering.threshold, "overlap"))
        values.append((clustering.same, clustering.other))
        text += " Groups become one identity while they share the right threshold of their neighborhoods on average."
    chart = charts.distances([(p, *v) for p, v in zip(panels, values, strict=True)])
    aside = "thresholds found without labels" if calibration.calibrated else "thresholds as set or published"
    aside += f"; different people: {calibration.different_people}"
    return Section("Distances and thresholds", aside, text, chart=chart)


def _montages(run: RunResult, columns: Columns) -> list[Section]:
    doubtful = bool(np.isfinite(columns.confidence).any())
    order = (
        ", the most doubtful first: confidence is the estimated share of right pairs" if doubtful else ", a random few"
    )
    kinds = (
        ("Excluded by level 1", cases_of.excluded, "Marked: far from the mean of its tracklet's other images."),
        ("Moved by level 2", cases_of.moved, "Excluded images that another tracklet of their video took in."),
        ("Discarded by level 2", cases_of.discarded, "Excluded images that no other tracklet is near enough to."),
        ("Merged by level 2", cases_of.merged, f"Tracklets of one video that became one identity{order}."),
        ("Joined by level 3", cases_of.linked, f"Identities found in several videos, one strip for each{order}."),
        ("Identities as written", cases_of.final, f"With the images that the selection kept{order}."),
    )
    rng = np.random.default_rng(run.settings["seed"])
    found = [(title, text, find(columns, rng, SHOWN)) for title, find, text in kinds]
    sections = [_montage(run, title, text, cases) for title, text, cases in found if cases.total]
    if not sections or run.images["truth"].null_count == len(run.images):
        return sections
    note = "Below each picture stands its true identity, in red where most pictures beside it show somebody else."
    return [dataclasses.replace(sections[0], note=note), *sections[1:]]


def _montage(run: RunResult, title: str, text: str, cases: Cases) -> Section:
    aside = f"{len(cases.shown)} of {cases.total:,}" if cases.total > len(cases.shown) else f"all {cases.total:,}"
    return Section(title, aside, text, cases=[_case(run, case) for case in cases.shown])


def _case(run: RunResult, case: Case) -> view.Case:
    rows = [row for strip in case.strips for row in strip.rows]
    images = dict(zip(rows, images_at(run.images, rows), strict=True))
    truths = collections.Counter(image.truth for image in images.values() if image.truth is not None)
    usual = truths.most_common(1)[0][0] if truths else None

    def crop(row: int, marked: bool) -> Crop:
        image = images[row]
        note = "" if image.truth is None else "nobody" if image.truth < 0 else f"{image.truth}"
        wrong = image.truth not in (None, usual) or image.truth == -1
        return Crop(_thumbnail(run, image), image.key, note, marked, wrong)

    strips = [Strip(strip.label, [crop(row, row == strip.marked) for row in strip.rows]) for strip in case.strips]
    return view.Case(case.caption, strips)


def _thumbnail(run: RunResult, image: Image) -> str | None:
    """A small JPEG as a data URI; None where the picture cannot be read."""
    try:
        crop = images.decode(run.jpeg_of(image))
    except (OSError, images.PictureError):
        return None
    width = min(max(round(crop.shape[1] * THUMBNAIL / crop.shape[0]), 8), 2 * THUMBNAIL)
    small = cv2.resize(crop, (width, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return "data:image/jpeg;base64," + base64.b64encode(images.encode_jpeg(small, 80)).decode()


def _rejected(folder: Path, run: RunResult) -> Section | None:
    if not run.rejected:
        return None
    listed = rejects.examples(folder, run.rejected, EXAMPLES)
    rows = [(reason, f"{count:,}", "; ".join(listed.get(reason, ()))) for reason, count in run.rejected.items()]
    text = f"Inputs that could not be used; all of them are listed in {records.REJECTED_FILE}."
    table = Table(("reason", "count", "for example"), rows, words=True)
    return Section("Set aside", f"{sum(run.rejected.values()):,}", text, table=table)
