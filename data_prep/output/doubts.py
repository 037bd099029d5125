"""What speaks against a run's identities, for the log, the report and the data card."""

from __future__ import annotations

from typing import Any

import numpy as np

from data_prep.output.provenance import RunResult

FEW = 500  # tracklets, below which an estimate is rough
UNLIKE = 1.5  # distance to the most similar known world
COLLAPSED = 0.5  # share of images in one identity, or of pairs that are right


def certificate(run: RunResult) -> dict[str, Any] | None:
    """What ``metrics.json`` says of the estimate; None where there is none."""
    found = run.certificate
    if found is None or run.clustering is None:
        return None
    shares = {
        name: {part: round(getattr(getattr(found, name), part), 4) for part in ("low", "value", "high")}
        for name in ("precision", "recall", "input_precision", "input_recall")
    }
    return {**shares, "interval": 0.9, "unlike": round(found.unlike, 3), "applied": run.clustering.applied}


def told(run: RunResult) -> list[str]:
    """A sentence for each doubt; none for a source that knows its identities."""
    if len(run.levels) < 2:
        return []
    return [
        text for text in (_few(run), _unlike(run), _unshared(run), _worse(run), _noisier(run), _collapsed(run)) if text
    ]


def _few(run: RunResult) -> str:
    count = len({*zip(run.images["video"].to_pylist(), run.images["tracklet"].to_pylist(), strict=True)})
    return f"The world is small: {count:,} tracklets. Estimates from fewer than {FEW} are rough." if count < FEW else ""


def _unlike(run: RunResult) -> str:
    if run.certificate is None:
        return "How right the identities are was not estimated."
    if run.certificate.unlike <= UNLIKE:
        return ""
    return (
        f"No world of known truth is like this one (distance {run.certificate.unlike:.1f}, at most {UNLIKE} in usual "
        "ones): the estimated precision and recall may be far off."
    )


def _unshared(run: RunResult) -> str:
    identity, videos = run.images["identity"].fill_null(-1).to_numpy(), run.images["video"].combine_chunks()
    video = videos.indices.to_numpy(zero_copy_only=False)
    if len(np.unique(video)) < 2 or _across(identity[identity >= 0], video[identity >= 0]):
        return ""
    return "Nobody was found in more than one video: the videos may share nobody, or the features may not tell it."


def _across(identity: np.ndarray, video: np.ndarray) -> bool:
    """Whether an identity is in two videos."""
    return len(np.unique(np.stack([identity, video]), axis=1).T) > len(np.unique(identity))


def _worse(run: RunResult) -> str:
    if run.clustering is None or run.clustering.applied:
        return ""
    return "No level was applied: by the estimate the tracklets of the input are better than the identities found."


def _noisier(run: RunResult) -> str:
    first, last = run.levels[0]["noise"], run.levels[-1]["noise"]
    return f"The noise rose, from {first:.3g} to {last:.3g} per identity." if last > first else ""


def _collapsed(run: RunResult) -> str:
    identity = run.images["identity"].fill_null(-1).to_numpy()
    kept = identity[identity >= 0]
    largest = np.bincount(kept).max() / len(kept) if len(kept) else 0
    precision = run.certificate.precision.value if run.certificate else 1.0
    if largest <= COLLAPSED and precision >= COLLAPSED:
        return ""
    why = f"one holds {largest:.0%} of the images" if largest > COLLAPSED else f"estimated precision {precision:.2f}"
    return f"Identities have collapsed ({why}). The noise does not show it: it is low where few identities are left."
