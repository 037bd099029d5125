"""The thresholds of a run: as set, as the data set itself says, or as published, before anything is denoised."""

from __future__ import annotations

import itertools
import logging

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
    too few, too, thresholds that are not set are the published ones. The log says so. Features are read once.
    """
    settings, wanted = config.calibration, config.denoising.calibrate
    different = calibrate.COOCCURRING if _cooccur(table, settings.min_pairs) else calibrate.RANDOM
    samples = _samples(table, different, settings.max_distances)
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


def _samples(table: ImageTable, different: str, most: int) -> Samples:
    rng = np.random.default_rng(0)
    found = []
    labeled = table.labeled(table.tracklet)
    for (features, tracklet), cooccurring in zip(labeled, table.cooccurring(), strict=True):
        local = tracklet - tracklet[0]
        pairs = cooccurring if different == calibrate.COOCCURRING else calibrate.random_pairs(local, rng)
        found.append(calibrate.sample(features, local, pairs))
    return calibrate.joined(found, most, rng)
