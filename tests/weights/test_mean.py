"""The mean of networks' weights, as a checkpoint."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import cion_jax
from cion_jax.common.typed_config import ConfigError
from cion_jax.exporting.formats import FORMATS
from cion_jax.weights import load, mean
from cion_jax.weights.torch_names import WeightsError

NAME = "resnet18@32x16"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A network, and one whose weights and statistics are three times as large."""
    folder = tmp_path_factory.mktemp("mean")
    one = cion_jax.load(f"random:{NAME}")
    three = replace(one, **{part: jax.tree.map(lambda x: 3 * x, getattr(one, part)) for part in ("params", "stats")})
    for name, network in (("one", one), ("three", three)):
        FORMATS["safetensors"].write(folder / f"{name}.safetensors", network)
    return folder / "one.safetensors", folder / "three.safetensors"


@pytest.mark.parametrize(("spec", "factor"), [("{}+{}", 2.0), ("0.75*{}+0.25*{}", 1.5), (".5*{}+0.5*{}", 2.0)])
def test_weights_and_statistics_are_means(files, spec, factor):
    one, found = cion_jax.load(files[0]), cion_jax.load(f"mean:{spec.format(*files)}")
    for before, after in zip(
        jax.tree.leaves((one.params, one.stats)), jax.tree.leaves((found.params, found.stats)), strict=True
    ):
        np.testing.assert_allclose(after, factor * before, rtol=1e-6)
        assert after.dtype == np.float32
    assert (found.name, found.size, found.step) == ("resnet18", (32, 16), None)
    assert found([np.zeros((9, 9, 3), np.uint8)]).shape == (1, 512)


def test_the_mean_of_a_network_with_itself_is_that_network(files):
    assert cion_jax.load(f"mean:{files[0]}+{files[0]}").digest() == cion_jax.load(files[0]).digest()


@pytest.mark.parametrize("spec", ["A", "", "A+", "0.3*A+B", "0.3*A+0.3*B", "0.5*A+0.5*"])
def test_other_spellings(spec):
    with pytest.raises(ConfigError, match=r"expected mean:A\+B, or shares of all that make 1"):
        mean.parts(f"mean:{spec}")


def test_networks_of_several_kinds(files):
    for other in ("random:resnet18@32x32", "random:resnet18_ibn@32x16"):
        with pytest.raises(WeightsError, match="expected networks of one kind that take the same images"):
            cion_jax.load(f"mean:{files[0]}+{other}")


def test_its_files_are_known(files):
    assert load.weights_file(f"mean:0.5*file:{NAME}={files[0]}+0.5*{files[1]}") == list(files)
