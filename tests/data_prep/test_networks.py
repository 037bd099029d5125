"""Networks in files: what they are fed and what is taken from them, on networks whose features are their input."""

import hashlib
import logging
import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cion_jax.common.errors import UserError
from cion_jax.common.extras import MissingPackageError
from cion_jax.common.image_network import ImageNetwork, Input
from cion_jax.common.image_options import MEAN, STD, Options
from cion_jax.common.onnx_session import OnnxError
from data_prep import embedders
from data_prep.embedders import network

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
# [3, 4, 2, 3] uint8: three crops that need no resizing.
CROPS = np.random.default_rng(0).integers(0, 256, (3, 4, 2, 3)).astype(np.uint8)


def save(path, shape, dtype="float32", steps=(("Flatten", {}),), outputs=("N", "d"), weights=None, **how):
    """A network that gives its input (times `weights`), as float32 unless it is float16, through some steps."""
    kind = TYPES[dtype if dtype == "float16" else "float32"]
    nodes, value = [helper.make_node("Cast", ["x"], ["x0"], to=kind)], "x0"
    for number, (name, attributes) in enumerate(steps, 1):
        nodes.append(helper.make_node(name, [value, *(["w"] if name == "Mul" else [])], [f"x{number}"], **attributes))
        value = f"x{number}"
    taken = helper.make_tensor_value_info("x", TYPES[dtype], shape)
    given = helper.make_tensor_value_info(value, kind, outputs)
    some = [] if weights is None else [numpy_helper.from_array(weights, "w")]
    graph = helper.make_graph(nodes, "g", [taken], [given], some)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path), **how)
    return path


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def nchw(pixels):
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


NORMAL = (CROPS / 255 - MEAN) / STD


@pytest.mark.parametrize(
    ("shape", "dtype", "options", "expected"),
    [
        (["N", 3, 4, 2], "float32", "", nchw(NORMAL)),
        (["N", 4, 2, 3], "float32", "", NORMAL.reshape(3, -1)),
        (["N", 4, 2, 3], "uint8", "", CROPS.reshape(3, -1)),
        (["N", 3, 4, 2], "uint8", "", nchw(CROPS)),
        (["N", 3, 4, 2], "float16", "", nchw(NORMAL)),
        ([2, 3, 4, 2], "float32", "", nchw(NORMAL)),  # batches of a fixed size: the last one is filled up
        (["N", 3, "h", "w"], "float32", "?size=4x2", nchw(NORMAL)),
        (["N", 3, 4, 2], "float32", "?channels=bgr&mean=0&std=1", nchw(CROPS[..., ::-1] / 255)),
        (["N", 3, 4, 2], "float32", "?range=255&mean=0&std=1", nchw(CROPS)),
        (["N", 3, 4, 2], "float32", "?range=255", nchw(NORMAL)),  # the usual mean, in units of the range
        (["N", 3, 4, 2], "float32", "?channels=bgr", nchw(NORMAL[..., ::-1])),
        (["N", 3, 4, 2], "float32", "?mean=0.5,0.25,0&std=0.5,1,1", nchw((CROPS / 255 - (0.5, 0.25, 0)) / (0.5, 1, 1))),
    ],
)
def test_what_a_network_is_fed(tmp_path, shape, dtype, options, expected):
    spec = f"onnx:{save(tmp_path / 'net.onnx', shape, dtype)}{options}"
    embedder = embedders.open(spec)
    assert embedder.name == spec
    features = embedder(iter(CROPS))
    assert features.dtype == np.float32
    np.testing.assert_allclose(features, unit(expected), atol=2e-3 if dtype == "float16" else 1e-6)


def test_features_with_sides_of_length_one(tmp_path):
    pool = (("GlobalAveragePool", {}),)
    path = save(tmp_path / "net.onnx", ["N", 3, 4, 2], steps=pool, outputs=["N", 3, 1, 1])
    np.testing.assert_allclose(embedders.open(f"onnx:{path}")(CROPS), unit(NORMAL.mean((1, 2))), atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (["N", 3, 4, 2], "?sise=4x2", "no option 'sise' of an extractor; did you mean 'size'"),
        (["N", 3, 4, 2], "?size=8x2", "its file says 4x2; leave size out"),
        (["N", 3, 4, 2], "?size=4", "option size='4': expected HEIGHTxWIDTH in pixels, like 256x128"),
        (["N", 3, "h", "w"], "", r"leaves height and width free; give them, like .*net.onnx\?size=256x128"),
        (
            ["N", 3, 4, 2],
            "?mean=123.7&std=58",
            r"of pixels in 0 \.\. 1; where they are of pixels in 0 \.\. 255, add range",
        ),
        (["N", 3, 4, 2], "?std=0", "has to be above 0"),
        (["N", 3, 4, 2], "?mean=nan", "expected one number, or three"),
        (["N", 3, 4, 2], "?channels=grb", "expected rgb or bgr"),
        (["N", 1, 4, 2], "", r"takes \[None, 1, 4, 2\] float32, expected \[N, 3, height, width\] or"),
        (["N", 3, "h", "w"], "?size=9999x9999", "64 crops of 9999x9999 at a time"),
        ([10**6, 3, 256, 128], "", "1000000 crops of 256x128 at a time"),
        (["N", 3, 4, 2], "?output=logits", r"has no output logits; give the one with the features: .* one of x1"),
        (["N", 24], "", r"takes \[None, 24\] float32, expected"),
    ],
)
def test_what_cannot_be_fed_is_said(tmp_path, shape, options, message):
    save(tmp_path / "net.onnx", shape)
    with pytest.raises(embedders.EmbedderError, match=message):
        embedders.open(f"onnx:{tmp_path}/net.onnx{options}")


def test_of_several_outputs_one_has_to_be_named(tmp_path):
    model = onnx.load(save(tmp_path / "net.onnx", ["N", 3, 4, 2]))
    model.graph.node.append(helper.make_node("Neg", ["x1"], ["logits"]))
    model.graph.output.insert(0, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "d"]))
    onnx.save(model, tmp_path / "net.onnx")
    with pytest.raises(embedders.EmbedderError, match=r"several outputs; give .* one of logits, x1"):
        embedders.open(f"onnx:{tmp_path}/net.onnx")
    features = embedders.open(f"onnx:{tmp_path}/net.onnx?output=x1")(CROPS)
    np.testing.assert_allclose(features, unit(nchw(NORMAL)), atol=1e-5)


def test_pixels_take_no_normalization(tmp_path):
    save(tmp_path / "net.onnx", ["N", 4, 2, 3], "uint8")
    with pytest.raises(embedders.EmbedderError, match="its input is uint8, it gets the pixels; leave mean"):
        embedders.open(f"onnx:{tmp_path}/net.onnx?mean=0")


def test_a_map_of_features_is_refused(tmp_path):
    path = save(tmp_path / "net.onnx", ["N", 3, 4, 2], steps=[("Relu", {})], outputs=["N", 3, 4, 2])
    with pytest.raises(
        embedders.EmbedderError, match=r"gives \[1, 3, 4, 2\] for 1 images, expected one row .* pooling"
    ):
        embedders.open(f"onnx:{path}")


def test_options_are_part_of_what_determines_the_features(tmp_path):
    path = save(tmp_path / "net.onnx", ["N", 3, 4, 2])
    plain, turned = (embedders.open(f"onnx:{path}{options}").digest for options in ("", "?channels=bgr"))
    assert plain == hashlib.sha256(path.read_bytes()).hexdigest() != turned


def external(folder, scale):
    how = dict(save_as_external_data=True, location="net.data", size_threshold=0)
    weights = np.full((1, 3, 4, 2), scale, np.float32)
    (folder / "net.data").unlink(missing_ok=True)
    return save(folder / "net.onnx", ["N", 3, 4, 2], steps=[("Mul", {}), ("Flatten", {})], weights=weights, **how)


def test_weights_beside_the_file_belong_to_it(tmp_path, monkeypatch):
    path = external(tmp_path, 2)
    monkeypatch.chdir("/")
    first = embedders.open(f"onnx:{path}")
    np.testing.assert_allclose(first(CROPS), unit(nchw(NORMAL)), atol=1e-6)
    assert embedders.open(f"onnx:{path}").digest == first.digest
    external(tmp_path, 3)
    assert embedders.open(f"onnx:{path}").digest != first.digest
    (tmp_path / "net.data").unlink()
    with pytest.raises(OnnxError, match=r"keeps its weights in net\.data, which is not beside it"):
        embedders.open(f"onnx:{path}")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda x: x.reshape(len(x), -1)[:, :3] * np.nan, "some are not finite"),
        (lambda x: np.ones((len(x), 5), np.float32), "all numbers of an image are the same"),
        (lambda x: np.arange(5.0)[None].repeat(len(x), 0), "they are the same for different images"),
    ],
)
def test_features_that_look_wrong_are_said_once(caplog, spoil, message):
    net = network.Network(ImageNetwork("onnx:net", "0", Input([None, 3, 4, 2], "float32"), spoil, Options()))
    with caplog.at_level(logging.WARNING):
        net(CROPS)
        net(CROPS)
    assert len(caplog.records) == 1
    assert message in caplog.text
    assert "float32 [3, 3, 4, 2], RGB, values -2." in caplog.text


def test_good_features_and_equal_crops_are_no_news(tmp_path, caplog):
    embedder = embedders.open(f"onnx:{save(tmp_path / 'net.onnx', ['N', 3, 4, 2])}")
    embedder(CROPS[[0, 0, 0]])
    embedder(CROPS)
    assert not caplog.records


def test_the_runtime_is_silent(tmp_path):
    """An initializer that nothing uses makes ONNX Runtime warn."""
    path = save(tmp_path / "net.onnx", ["N", 3, 4, 2], weights=np.ones((3,), np.float32))
    script = f"from data_prep import embedders; embedders.open('onnx:{path}')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_opening_one_extractor_imports_no_other():
    script = "import sys; from data_prep import embedders; embedders.open('color'); print(sorted(sys.modules))"
    names = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert not {"'jax'", "'onnxruntime'", "'openvino'", "'onnx'"} & set(names.strip("[]\n").split(", "))


def test_an_extractor_of_ones_own():
    class Mine:
        usage = "mine:WHAT"
        digest = "0"

        def __init__(self, argument):
            self.name = f"mine:{argument}"

    embedders.REGISTRY.register("mine", Mine)
    try:
        assert embedders.open("mine:x").name == "mine:x"
        assert "mine:WHAT" in embedders.kinds()
        with pytest.raises(embedders.EmbedderError, match="no embedder 'mine'; did you mean 'mine:WHAT'"):
            embedders.open("mine")
    finally:
        del embedders.REGISTRY._found["mine"]


def test_a_file_of_a_bucket_is_refused():
    with pytest.raises(UserError, match=r"gs://b/net.onnx is a URL, expected a path on this machine; copy it here"):
        embedders.open("onnx:gs://b/net.onnx")


def test_a_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    save(tmp_path / "net.onnx", ["N", 3, 4, 2])
    assert embedders.open("onnx:~/net.onnx").name == "onnx:~/net.onnx"


class TestOpenVino:
    @pytest.fixture
    def path(self, tmp_path):
        openvino = pytest.importorskip("openvino", reason="openvino is not installed: pip install openvino")
        model = openvino.convert_model(save(tmp_path / "net.onnx", ["N", 3, 4, 2]))
        openvino.save_model(model, tmp_path / "net.xml", compress_to_fp16=False)
        return tmp_path / "net.xml"

    def test_features(self, path):
        embedder = embedders.open(f"openvino:{path}?channels=bgr&range=255&mean=0&std=1")
        np.testing.assert_allclose(embedder(CROPS), unit(nchw(CROPS[..., ::-1])), atol=1e-5)

    def test_weights_belong_to_it(self, path):
        before = embedders.open(f"openvino:{path}").digest
        weights = path.with_suffix(".bin")
        weights.write_bytes(weights.read_bytes() + b"\0")
        assert embedders.open(f"openvino:{path}").digest != before
        weights.unlink()
        with pytest.raises(embedders.EmbedderError, match=r"expected FILE\.xml and beside it FILE\.bin"):
            embedders.open(f"openvino:{path}")


def test_without_openvino_it_is_said_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    for name in ("net.xml", "net.bin"):
        (tmp_path / name).touch()
    with pytest.raises(MissingPackageError, match=r"openvino:FILE needs .*pip install 'cion-jax\[openvino\]'"):
        embedders.open(f"openvino:{tmp_path}/net.xml")
