"""A network of PyTorch's exporter, norms folded, read back into a backbone that can train."""

import jax
import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, save

from cion_jax import models
from cion_jax.weights import folded_onnx
from cion_jax.weights.load import load
from cion_jax.weights.torch_names import WeightsError


def test_the_public_file_computes_the_same(data):
    file = data / "weights" / "osnet_x0_25_msmt17.onnx"
    backbone = load(f"file:osnet_x0_25={file}")
    images = np.random.default_rng(0).standard_normal((2, 256, 128, 3)).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(file)).run(None, {"images": images.transpose(0, 3, 1, 2)})[0]
    np.testing.assert_allclose(jax.jit(backbone.module())(images), expected, rtol=0, atol=1e-4 * expected.std())


def write(path, output):
    kernel = helper.make_tensor("onnx::Conv_1", TensorProto.FLOAT, (16, 3, 7, 7), [0.5] * (16 * 3 * 49))
    bias = helper.make_tensor("onnx::Conv_2", TensorProto.FLOAT, (16,), list(range(16)))
    node = helper.make_node("Conv", ["images", kernel.name, bias.name], [output])
    x = helper.make_tensor_value_info("images", TensorProto.FLOAT, (1, 3, 256, 128))
    y = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    save(helper.make_model(helper.make_graph([node], "g", [x], [y], [kernel, bias])), path)


def test_a_convolution_and_its_norm_get_their_names_back(tmp_path):
    write(tmp_path / "n.onnx", "/conv1/conv/Conv_output_0")
    named = folded_onnx.read(tmp_path / "n.onnx", models.abstract("osnet_x0_25"))
    assert {name: array.shape for name, array in named.items()} == {
        "conv1.conv.weight": (16, 3, 7, 7),
        **{f"conv1.bn.{part}": (16,) for part in ("weight", "bias", "running_mean", "running_var")},
    }
    np.testing.assert_array_equal(named["conv1.bn.bias"], np.arange(16))
    np.testing.assert_allclose(named["conv1.bn.running_var"] + 1e-5, 1, rtol=1e-6)
    with pytest.raises(WeightsError, match=r"do not fit the model in \d+ places"):
        load(f"file:osnet_x0_25={tmp_path / 'n.onnx'}")


def test_a_convolution_of_another_network(tmp_path):
    write(tmp_path / "n.onnx", "/stem/conv/Conv_output_0")
    with pytest.raises(WeightsError, match=r"has a convolution 'stem.conv', the model has none of that name"):
        folded_onnx.read(tmp_path / "n.onnx", models.abstract("osnet_x0_25"))


def test_no_onnx_file(tmp_path):
    (tmp_path / "n.onnx").write_bytes(b"\x08")
    with pytest.raises(WeightsError, match="is not a usable ONNX model"):
        folded_onnx.read(tmp_path / "n.onnx", models.abstract("osnet_x0_25"))
