"""OSNet against the authors' program, as it was exported to ONNX, and against the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from onnx import numpy_helper

from cion_jax import models
from cion_jax.exporting.formats import FORMATS
from cion_jax.models import flops, osnet
from cion_jax.weights import torch_names
from cion_jax.weights.load import load

EPS = 1e-5  # of BatchNorm
# Trained numbers and multiply-adds (millions) at 256x128: table 1 of arXiv 1905.00953, which gives 2.2, 1.3, 0.6 and
# 0.2 million and 978.9, 571.8, 272.9 and 82.3, with an InstanceNorm's weights and biases for a BatchNorm's or on top.
SIZES = {
    "osnet_x0_25": (201_864, 82.3),
    "osnet_x0_5": (630_034, 272.9),
    "osnet_x0_75": (1_285_754, 571.8),
    "osnet_x1_0": (2_169_508, 978.9),
    "osnet_ibn_x1_0": (2_169_508 + 2 * 2 * 256, 978.9),
    "osnet_ain_x1_0": (2_169_508, 978.9),
}
KW = {"dtype": jnp.float32, "rngs": nnx.Rngs(0)}


def _program_with(named, path):
    """The exported program with the weights of a state dict, norms folded as the export had folded its own."""
    program = onnx.load(path)
    stored = {tensor.name: tensor for tensor in program.graph.initializer}

    def put(name, array):
        array = array.astype(np.float32)
        assert array.shape == tuple(stored[name].dims), name
        stored[name].CopyFrom(numpy_helper.from_array(array, name))

    for node in program.graph.node:
        if node.op_type == "Conv" and node.input[1].startswith("onnx::"):
            layer = _layer(node.output[0])
            norm = layer.rpartition(".")[0] + ".bn"
            scale, bias, mean, var = (
                named[f"{norm}.{part}"].astype(np.float64) for part in ("weight", "bias", "running_mean", "running_var")
            )
            factor = scale / np.sqrt(var + EPS)
            put(node.input[1], named[f"{layer}.weight"] * factor[:, None, None, None])
            put(node.input[2], bias - factor * mean)
    for name in stored.keys() & named.keys():
        put(name, named[name])
    return onnxruntime.InferenceSession(program.SerializeToString())


def _layer(output):
    """ "/conv2/conv2.0/conv1/conv/Conv_output_0" -> "conv2.0.conv1.conv": no part that the next one begins with."""
    *parts, _ = output.strip("/").split("/")
    return ".".join(a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(a + "."))


def test_equals_the_authors_program_with_the_public_weights(data, capsys):
    file, program = (data / "weights" / f"osnet_x0_25_msmt17.{kind}" for kind in ("pth", "onnx"))
    backbone = load(f"file:osnet_x0_25={file}")
    assert "left out classifier.bias (1041,), classifier.weight (1041, 512)" in capsys.readouterr().err
    named = torch_names.to_torch(backbone.params, backbone.stats)
    assert (len(named), sum(array.size for array in named.values())) == (565, 208_472)
    images = np.random.default_rng(0).standard_normal((2, 256, 128, 3)).astype(np.float32)
    expected = _program_with(named, program).run(None, {"images": images.transpose(0, 3, 1, 2)})[0]
    got = jax.jit(backbone.module())(images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * expected.std())


MIDDLE = ("osnet_x0_5", "osnet_x0_75", "osnet_ibn_x1_0")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in MIDDLE else n for n in SIZES])
def test_sizes_are_the_published_ones(name):
    module = models.abstract(name)
    assert (flops.parameters(module), round(flops.multiply_adds(module) / 1e6, 1)) == SIZES[name]


def _entries(name):
    """{PyTorch name: shape} of a backbone."""
    _, params, stats = models.split(models.abstract(name))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), (params, stats))
    return {entry: array.shape for entry, array in torch_names.to_torch(*zeros).items()}


@pytest.mark.parametrize(("name", "entries"), [("osnet_x1_0", 565), ("osnet_ibn_x1_0", 566), ("osnet_ain_x1_0", 550)])
def test_names_are_those_of_the_public_files(name, entries):
    """As many as the authors' state dict has without its classifier; of the names those in which the layouts differ."""
    found = _entries(name)
    assert len(found) == entries
    assert ("conv1.bn.running_mean" in found) == (name == "osnet_x1_0")  # else InstanceNorm
    if name == "osnet_ain_x1_0":
        assert found["conv2.0.conv2.3.layers.3.conv2.weight"] == (64, 1, 3, 3)
        assert found["pool3.0.conv.weight"] == (384, 384, 1, 1)
        assert {n.split(".IN")[0] for n in found if ".IN." in n} == {"conv2.0", "conv2.1", "conv3.1", "conv4.0"}
        assert "conv4.0.conv3.bn.weight" not in found  # InstanceNorm in its place
        assert "conv4.1.conv3.bn.weight" in found
    else:
        assert found["conv2.0.conv2d.3.conv2.weight"] == (64, 1, 3, 3)
        assert found["conv3.2.0.conv.weight"] == (384, 384, 1, 1)
        assert found["conv2.1.gate.fc1.weight"] == (4, 64, 1, 1)
        instance = {"conv2.0", "conv2.1"} if "ibn" in name else set()
        assert {n.split(".IN")[0] for n in found if ".IN." in n} == instance


@pytest.mark.parametrize("instance", ["after", "inside"])
def test_instance_norm_behind_the_sum_or_inside_the_branch(instance):
    """The branch of a block is silenced: what is left is the normalized shortcut, or the shortcut and a constant."""
    block = osnet.Block(64, 64, instance, **KW)
    block.conv3.conv.kernel[...] = jnp.zeros((1, 1, 16, 64))
    block.IN.bias[...] = jnp.full(64, 0.5)
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 64))
    centered = x - x.mean((1, 2), keepdims=True)
    normalized = centered / jnp.sqrt(jnp.square(centered).mean((1, 2), keepdims=True) + EPS)
    expected = jax.nn.relu((normalized if instance == "after" else x) + 0.5)
    np.testing.assert_allclose(block(x, train=False), expected, atol=1e-5)


def test_one_gate_weights_all_streams():
    """Closed but for a half, with the identity in all else, a block adds half of every stream to its shortcut."""
    block = osnet.Block(64, 64, **KW)
    for lite in [lite for stream in block._streams() for lite in stream]:
        lite.conv1.kernel[...] = jnp.eye(16)[None, None]
        lite.conv2.kernel[...] = jnp.zeros((3, 3, 1, 16)).at[1, 1].set(1)
    block.gate.fc2.kernel[...] = jnp.zeros((1, 1, 1, 16))
    block.conv1.conv.kernel[...] = jnp.eye(64)[None, None, :, :16]
    block.conv3.conv.kernel[...] = jnp.eye(64)[None, None, :16]
    x = jnp.abs(jax.random.normal(jax.random.key(0), (2, 4, 4, 64)))
    y = block(x, train=False)
    np.testing.assert_allclose(y[..., :16], x[..., :16] * (1 + 4 * 0.5), rtol=1e-3)  # BatchNorm's epsilon, six times
    np.testing.assert_allclose(y[..., 16:], x[..., 16:], rtol=1e-6)


def test_pooling_leaves_an_odd_last_row_out():
    x = jnp.arange(12.0).reshape(1, 3, 4, 1)
    np.testing.assert_array_equal(osnet._halved(x)[0, ..., 0], [[2.5, 4.5]])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["osnet_x0_25", "osnet_ibn_x1_0", "osnet_ain_x1_0"])
def test_onnx(tmp_path, name):
    backbone = load(f"random:{name}@64x32")
    FORMATS["onnx"].write(tmp_path / "o.onnx", backbone)
    assert FORMATS["onnx"].error(tmp_path / "o.onnx", backbone) < FORMATS["onnx"].tolerance
