"""OSNet against the authors' program, as it was exported to ONNX, and against the published sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from flax import nnx
from onnx import numpy_helper

from cion_jax import models, pretrained
from cion_jax.models import osnet, weights

EPS = 1e-5  # of BatchNorm


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
    """ "/conv2/conv2.0/conv1/conv/Conv_output_0" -> "conv2.0.conv1.conv": a part that the next begins with is dropped."""
    *parts, _ = output.strip("/").split("/")
    return ".".join(a for a, b in zip(parts, [*parts[1:], ""], strict=True) if not b.startswith(a + "."))


def test_equals_the_authors_program_with_the_public_weights(data, capsys):
    file, program = (data / "weights" / f"osnet_x0_25_msmt17.{kind}" for kind in ("pth", "onnx"))
    backbone = pretrained.load(f"file:osnet_x0_25={file}")
    assert "left out classifier.bias (1041,), classifier.weight (1041, 512)" in capsys.readouterr().err
    named = weights.to_torch(backbone.params, backbone.stats)
    assert (len(named), sum(array.size for array in named.values())) == (565, 208_472)
    images = np.random.default_rng(0).standard_normal((2, 256, 128, 3)).astype(np.float32)
    expected = _program_with(named, program).run(None, {"images": images.transpose(0, 3, 1, 2)})[0]
    got = jax.jit(backbone.module())(images)
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-4 * expected.std())
