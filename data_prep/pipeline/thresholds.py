"""The limits of a run: as set, as the data set itself says, or as published, before anything is denoised."""

from __future__ import annotations

import logging

import numpy as np

from data_prep.config import Config
from data_prep.denoise import calibrate
from data_prep.denoise.calibrate import Samples, Settled
from data_prep.pipeline.image_table import Collection

_LOG = logging.getLogger(__name__)
_MOST = 20_000  # distances of a kind that are kept


def settle(collection: Collection, config: Config) -> Settled:
    """Samples the distances of a data set that is to be denoised and settles its limits.

    Where too few tracklets were seen together, random pairs of tracklets of one video stand for different people;
    where these are too few, too, limits that are not set are the published ones. The log says so.
    """
    samples, apart = _samples(collection, meeting=True), calibrate.MET
    if len(samples.centroid_apart) < calibrate.FEWEST:
        samples, apart = _samples(collection, meeting=False), calibrate.RANDOM
    wanted = config.method.calibrate
    found = calibrate.limits(samples) if wanted else None
    if wanted and found is None:
        apart = calibrate.NONE
        _LOG.warning(
            "too few tracklets to calibrate with: the published limits are taken; set config.sigma_cst and _drm"
        )
    elif wanted and apart == calibrate.RANDOM:
        _LOG.warning("no tracklets were seen together: random pairs of one video stand for different people")
    return Settled(config.limits(found), samples, apart, found is not None)


def as_set(config: Config) -> Settled:
    """The limits of a data set that is not to be denoised."""
    return Settled(config.limits(), Samples(*(np.zeros(0),) * 4), calibrate.NONE, False)


def _samples(collection: Collection, meeting: bool) -> Samples:
    rng = np.random.default_rng(0)
    found = []
    parts = collection.parts(collection.tracklet)
    for (features, tracklet), pairs in zip(parts, collection.meetings(), strict=True):
        local = tracklet - tracklet[0]
        found.append(calibrate.sample(features, local, pairs if meeting else calibrate.random_pairs(local, rng)))
    return calibrate.joined(found, _MOST, rng)
