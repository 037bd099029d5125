"""The benchmark that shows what an adaptation sees of networks."""

import pytest

from benchmarks import adaptation_quality
from cion_jax.common.paths import local_path
from cion_jax.rounds import probe
from cion_jax.weights.load import load
from data_prep import sources
from tests import toy


def test_each_network_is_compared_with_the_one_before(people, tmp_path):
    measured = probe.opened(tmp_path / "probe.npz", sources.open("market1501", local_path(str(people), "people")))
    network = f"random:{toy.Toy.__name__.lower()}@32x16"
    (_, quality, nothing, *_, told), (_, same, equal, *_) = adaptation_quality.rows(measured, [network] * 2, str.upper)
    assert float(quality) == pytest.approx(measured.score(measured.features(load(network))).quality, abs=1e-4)
    assert told == network.upper()
    assert (same, nothing, equal) == (quality, "", "+0.0000 to +0.0000")
