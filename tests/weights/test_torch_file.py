"""Files of torch.save without PyTorch: tensors of every layout, and nothing of the file is run."""

import zipfile
from collections import OrderedDict

import ml_dtypes
import numpy as np
import pytest

from cion_jax.weights import torch_file
from cion_jax.weights.torch_file import Inert, TorchFileError
from tests import torch_writer as writer
from tests.torch_writer import Call, Named

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
FORMATS = pytest.mark.parametrize("save", [writer.save, writer.save_legacy], ids=["zip", "legacy"])


def there_and_back(tmp_path, saved, save=writer.save):
    save(tmp_path / "saved.pth", saved)
    return torch_file.read(tmp_path / "saved.pth")


@FORMATS
def test_the_layout_of_the_released_checkpoints(tmp_path, save):
    student = {"module.backbone.conv.weight": NUMBERS, "module.head.mlp.0.bias": NUMBERS[0, 0]}
    saved = {
        "student": writer.state_dict(student),
        "teacher": writer.state_dict({"backbone.bn.num_batches_tracked": np.int64(7)}, writer.parameter),
        "optimizer": {"state": {0: {"step": 3, "exp_avg": writer.tensor(NUMBERS)}}, "param_groups": [{"lr": 0.1}]},
        "epoch": 12,
        "args": writer.namespace(arch="vit_base", lr=0.0005),
        "loss": 3.25,
    }
    read = there_and_back(tmp_path, saved, save)
    assert list(read) == ["student", "teacher", "optimizer", "epoch", "args", "loss"]
    assert type(read["student"]) is OrderedDict
    for name, array in student.items():
        np.testing.assert_array_equal(read["student"][name], array)
    counter = read["teacher"]["backbone.bn.num_batches_tracked"]
    assert (counter, counter.dtype, counter.shape) == (7, np.int64, ())
    np.testing.assert_array_equal(read["optimizer"]["state"][0]["exp_avg"], NUMBERS)
    assert (read["epoch"], read["loss"], read["optimizer"]["param_groups"]) == (12, 3.25, [{"lr": 0.1}])
    assert isinstance(read["args"], Inert)
    assert not hasattr(read["args"], "arch")


@FORMATS
@pytest.mark.parametrize("dtype", [*writer.STORAGES])
def test_every_type(tmp_path, save, dtype):
    array = np.array([[0, 1], [1, 3]]).astype(getattr(ml_dtypes, dtype) if dtype == "bfloat16" else dtype)
    read = there_and_back(tmp_path, {"a": writer.tensor(array)}, save)["a"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


@FORMATS
def test_strides_offsets_and_shared_storages(tmp_path, save):
    storage = writer.Storage(NUMBERS)
    views = {
        "transposed": writer.tensor(NUMBERS, storage, shape=(4, 3, 2), strides=(1, 4, 12)),
        "row": writer.tensor(NUMBERS, storage, offset=16, shape=(4,), strides=(1,)),
        "every_third": writer.tensor(NUMBERS, storage, offset=1, shape=(2, 3), strides=(12, 3)),
        "expanded": writer.tensor(NUMBERS, storage, offset=5, shape=(3, 2), strides=(0, 0)),
        "empty": writer.tensor(np.zeros((0, 3), np.float32)),
        "scalar": writer.tensor(NUMBERS, storage, offset=23, shape=(), strides=()),
    }
    read = there_and_back(tmp_path, views, save)
    np.testing.assert_array_equal(read["transposed"], NUMBERS.transpose(2, 1, 0))
    np.testing.assert_array_equal(read["row"], [16, 17, 18, 19])
    np.testing.assert_array_equal(read["every_third"], [[1, 4, 7], [13, 16, 19]])
    np.testing.assert_array_equal(read["expanded"], [[5, 5]] * 3)
    assert read["empty"].shape == (0, 3)
    assert read["scalar"] == 23
    assert np.shares_memory(read["row"], read["transposed"])
    with pytest.raises(ValueError, match="read-only"):
        read["row"][0] = 0


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [(0, (2, 3, 5), (12, 4, 1)), (-1, (4,), (1,)), (0, (4,), (-1,)), (21, (4,), (1,)), (0, (4,), (1, 1))],
)
def test_a_tensor_may_not_look_beyond_its_storage(tmp_path, offset, shape, strides):
    with pytest.raises(TorchFileError, match="a tensor of shape"):
        there_and_back(tmp_path, [writer.tensor(NUMBERS, None, offset, shape, strides)])


@FORMATS
def test_nothing_of_the_file_is_run(tmp_path, save):
    """os.system, eval, and names that are ours to answer, in every place a pickle can put a call."""
    trace = tmp_path / "trace"
    command = f"touch {trace}"
    program = f"open({str(trace)!r}, 'w')"
    saved = {
        "a": Call(Named("os", "system"), command),
        "b": Call(Named("posix", "system"), command),
        "c": Call(Named("builtins", "eval"), program),
        "d": [Named("subprocess", "Popen")],
        "e": Call(Named("collections", "OrderedDict"), [("k", Call(Named("os", "system"), command))]),
        "f": Call(Named("some.module", "Thing"), state={"run": Call(Named("os", "system"), command)}),
    }
    read = there_and_back(tmp_path, saved, save)
    assert not trace.exists()
    assert repr(read["a"]) == "<os.system, not loaded>"
    assert isinstance(read["e"]["k"], Inert)


def test_what_a_placeholder_makes_cannot_be_called(tmp_path):
    made = Call(Call(Named("builtins", "getattr"), Named("os", "system"), "__call__"), "true")
    with pytest.raises(TorchFileError, match="not callable"):
        there_and_back(tmp_path, made)


def test_our_functions_cannot_be_changed(tmp_path):
    function = Named("torch._utils", "_rebuild_tensor_v2")
    with pytest.raises(TorchFileError, match="sets the state of a function"):
        there_and_back(tmp_path, Call(Named("torch._utils", "_rebuild_parameter"), function, state={"x": 1}))


def test_the_modules_that_it_names_are_not_imported(tmp_path):
    (tmp_path / "module_that_complains.py").write_text("raise SystemExit('imported')")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        read = there_and_back(tmp_path, [Named("module_that_complains", "Thing")])
    assert read[0].name == "module_that_complains.Thing"


def test_big_endian_files_are_refused(tmp_path):
    writer.save(tmp_path / "zip.pth", {}, byteorder="big")
    writer.save_legacy(tmp_path / "legacy.pth", {}, little_endian=False)
    for name in ("zip.pth", "legacy.pth"):
        with pytest.raises(TorchFileError, match="big-endian"):
            torch_file.read(tmp_path / name)


@FORMATS
def test_damaged_files(tmp_path, save):
    path = tmp_path / "saved.pth"
    save(path, {"a": writer.tensor(NUMBERS)})
    whole = path.read_bytes()
    for length in (0, 10, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(TorchFileError, match=r"saved\.pth"):
            torch_file.read(path)


def test_files_of_other_kinds(tmp_path):
    text = tmp_path / "notes.pth"
    text.write_text("no weights")
    archive = tmp_path / "archive.pt"
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("notes.txt", "no weights")
    for path in (text, archive):
        with pytest.raises(TorchFileError, match=path.name):
            torch_file.read(path)
    with pytest.raises(FileNotFoundError):
        torch_file.read(tmp_path / "nowhere.pth")
