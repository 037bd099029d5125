"""Every backbone of arXiv 2409.18569 against the numbers of the authors' code (CION_FIXTURES/README.md, section 1)."""

import jax
import numpy as np
import pytest

from cion_jax.weights import torch_names
from tests import toy
from tests.models import parity

# Fully compared in the fast tier: of the families that compile in under half a minute one each.
FAST = {"vit_tiny", "resnet18_ibn", "swin_tiny", "convnext_tiny"}

pytestmark = pytest.mark.parity


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in toy.PUBLISHED],
)
def measured(request, fixtures) -> parity.Measured:
    return parity.measure(request.param, fixtures)


@pytest.mark.parametrize("case", parity.CASES)
def test_equals_the_reference(measured, case):
    found = parity.comparisons(measured)
    if case not in found:
        pytest.skip("the backbone has no such case: see parity.py")
    assert found[case].error < found[case].bound


def test_weights_have_the_names_and_shapes_of_the_reference(measured):
    entries = {name: (tuple(shape), dtype) for name, shape, dtype, _ in measured.spec["entries"]}
    named = torch_names.to_torch(measured.params, measured.stats)
    assert {name: (array.shape, array.dtype.name) for name, array in named.items()} == entries
    assert sum(leaf.size for leaf in jax.tree.leaves(measured.params)) == measured.spec["params"]


def test_weights_come_back_unchanged(measured):
    named = torch_names.to_torch(measured.params, measured.stats)
    for name, array in measured.named.items():
        np.testing.assert_array_equal(named[name], array, err_msg=name)


def test_gradient_reaches_every_parameter(measured):
    for gradients in measured.gradients.values():
        without = {name for name, gradient in gradients.items() if not np.any(gradient)}
        assert without == set(measured.spec["params_without_gradient"])


def test_order_of_images_does_not_matter(measured):
    straight = np.concatenate([measured.outputs["out_128x64"], measured.outputs["out_blocks_128x64"]])
    assert parity.error(measured.permuted[::-1], straight) < 1e-5


def test_one_trace_per_shape(measured):
    assert measured.traces == [(4, 128, 64, 3), (6, 256, 128, 3)]
