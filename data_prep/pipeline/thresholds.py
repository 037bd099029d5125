"""The thresholds of a run: as set, as the data set itself says, or as published, before anything is denoised."""

from __future__ import annotations

import itertools
import logging
from dataclasses import fields

import numpy as np

from cion_jax.neighbors.linkage import between
from data_prep.config import Config
from data_prep.denoise import calibrate
from data_prep.denoise.calibrate import Calibration, Samples
from data_prep.pipeline.image_table import ImageTable

_LOG = logging.getLogger(__name__)


def calibrated(table: ImageTable, config: Config) -> Calibration:
    """Samples the distances of a data set that is to be denoised and chooses its thresholds.

    Where too few tracklets co-occur, random pairs of tracklets of one video stand for different people; where these are
    too few, too, thresholds that are not set are the published ones. The log says so. Features are read once at most.
    """
    settings, wanted = config.calibration, config.denoising.calibrate
    different = calibrate.COOCCURRING if _cooccur(table, settings.min_pairs) else calibrate.RANDOM
    samples = _samples(table, different, config)
    found = calibrate.thresholds(samples, settings) if wanted else None
    if wanted and found is None:
        different = calibrate.NONE
        _LOG.warning(
            "too few tracklets to calibrate with: the published thresholds are taken; set config.sigma_cst and _drm"
        )
    elif wanted and different == calibrate.RANDOM:
        _LOG.warning("no tracklets co-occur: random pairs of one video stand for different people")
    return Calibration(config.thresholds(found), samples, different, found is not None)


def as_set(config: Config) -> Calibration:
    """The thresholds of a data set that is not to be denoised."""
    return Calibration(config.thresholds(), Samples(*(np.zeros(0),) * 4), calibrate.NONE, False)


def _cooccur(table: ImageTable, least: int) -> bool:
    """Whether there are at least so many pairs of co-occurring tracklets; reads no features."""
    pairs = zip(table.spans(), table.cooccurring(), strict=True)
    counts = (len(between(table.tracklet[start:end], found)[0]) for (start, end, _), found in pairs)
    return any(count >= least for count in itertools.accumulate(counts))


def _samples(table: ImageTable, different: str, config: Config) -> Samples:
    """Distances of all videos; of very many, of random ones until there are twice as many of each kind as are kept."""
    rng, most = np.random.default_rng(0), config.calibration.max_distances
    many, videos = len(table.tracklets) > config.search.exact_rows, np.arange(len(table.videos))
    found: list[Samples] = []
    enough = np.zeros(len(fields(Samples)), np.int64)
    for video in (rng.permutation(videos) if many else videos).tolist():
        start, end, first = table.span(video)
        local = table.tracklet[start:end] - first
        met = different == calibrate.COOCCURRING
        pairs = table.cooccurring_in(video) if met else calibrate.random_pairs(local, rng)
        found.append(calibrate.sample(table.work.features(table.videos[video]), local, pairs))
        enough += [len(getattr(found[-1], kind.name)) for kind in fields(Samples)]
        if many and enough.min() >= 2 * most:
            break
    return calibrate.joined(found, most, rng)
