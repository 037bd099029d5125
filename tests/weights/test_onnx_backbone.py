"""Networks in ONNX form as feature extractors."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cion_jax.common.image_options import ImageNetworkError
from cion_jax.common.onnx_session import OnnxError
from cion_jax.embed import load_extractor

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])  # ImageNet, RGB


@pytest.fixture
def network(tmp_path):
    """Makes a file with the mean of every channel as its features."""

    def make(shape=("N", 3, 8, 4), kind=TensorProto.FLOAT, keep=0, over=(2, 3)):
        cast = helper.make_node("Cast", ["x"], ["z"], to=TensorProto.FLOAT)  # means of uint8 there are none
        node = helper.make_node("ReduceMean", ["z", "axes"], ["y"], keepdims=keep)
        axes = helper.make_tensor("axes", TensorProto.INT64, [len(over)], over)
        given = helper.make_tensor_value_info("x", kind, shape)
        made = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph([cast, node], "mean", [given], [made], [axes])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
        onnx.save(model, tmp_path / "mean.onnx")
        return tmp_path / "mean.onnx"

    return make


@pytest.mark.parametrize(("batch", "keep"), [("N", 0), (1, 0), (4, 0), (4, 1)])
def test_images_of_any_size_in_batches_free_or_fixed(network, batch, keep):
    extractor = load_extractor(f"onnx:{network((batch, 3, 8, 4), keep=keep)}", batch_size=2)
    colors = np.array([[200, 20, 2], [3, 130, 33], [0, 0, 255], [9, 9, 9], [1, 2, 3]])
    images = (np.full((h, 7, 3), color, np.uint8) for h, color in zip((8, 3, 40, 16, 9), colors, strict=True))
    np.testing.assert_allclose(extractor(images), (colors / 255 - MEAN) / STD, atol=1e-5)
    assert (extractor.name, extractor.step, extractor.size, extractor.features) == ("mean.onnx", None, (8, 4), 3)
    assert extractor([]).shape == (0, 3)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (TensorProto.FLOAT, (np.array([200, 20, 2]) / 255 - MEAN) / STD),
        (TensorProto.FLOAT16, (np.array([200, 20, 2]) / 255 - MEAN) / STD),
        (TensorProto.UINT8, [200, 20, 2]),
    ],
)
@pytest.mark.parametrize(("shape", "over"), [(("N", 3, 8, 4), (2, 3)), (("N", 8, 4, 3), (1, 2))])
def test_inputs_of_other_types_and_orders(network, kind, expected, shape, over):
    extractor = load_extractor(f"onnx:{network(shape, kind, over=over)}")
    np.testing.assert_allclose(extractor([np.full((9, 5, 3), (200, 20, 2), np.uint8)]), [expected], atol=2e-3)
    assert extractor.size == (8, 4)


def test_what_a_network_takes_can_be_said(network):
    """FastReID's networks take pixels up to 255, and leave height and width free where they are exported so."""
    file = network(("N", 3, "H", "W"))
    extractor = load_extractor(f"onnx:{file}?range=255&mean=100,50,0&std=10&channels=bgr&size=6x2")
    np.testing.assert_allclose(extractor([np.full((9, 5, 3), (200, 20, 2), np.uint8)]), [[-9.8, -3, 20]], atol=1e-4)
    assert extractor.size == (6, 2)
    assert extractor.digest() != load_extractor(f"onnx:{file}?size=6x2").digest()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"shape": ("N", 1, 8, 4)},
            r"takes \[None, 1, 8, 4\] float32, expected \[N, 3, height, width\]",
        ),
        ({"shape": ("N", 3, "H", 4)}, r"leaves height and width free; give them, like .*\?size=256x128"),
        ({"kind": TensorProto.INT64}, r"int64, expected"),
        ({"over": (2,)}, r"gives \[1, 3, 4\] for 1 images, expected one row of features each"),
    ],
)
def test_other_networks(network, made, message):
    with pytest.raises(ImageNetworkError, match=message):
        load_extractor(f"onnx:{network(**made)}")


def test_no_network(tmp_path):
    with pytest.raises(ImageNetworkError, match=r"no extractor at .*; give --checkpoint=onnx:FILE with"):
        load_extractor(f"onnx:{tmp_path / 'x.onnx'}")
    (tmp_path / "x.onnx").write_text("text")
    with pytest.raises(OnnxError, match="is not a usable ONNX model"):
        load_extractor(f"onnx:{tmp_path / 'x.onnx'}")
