"""The program that checks what is kept."""

import os

import numpy as np
import pytest
import safetensors.numpy
from absl import flags

from cion_jax import verify
from tests import torch_writer as writer

NUMBERS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.fixture(autouse=True)
def parsed_flags():
    if "all" not in flags.FLAGS:
        verify.define_flags()
    flags.FLAGS(["verify"])


def test_whole_files_are_ok(tmp_path, capsys):
    writer.save(tmp_path / "a.pth", {"state_dict": writer.state_dict({"w": NUMBERS, "b": NUMBERS[0]})})
    writer.save_legacy(tmp_path / "b.pth", writer.state_dict({"w": NUMBERS}))
    safetensors.numpy.save_file({"w": NUMBERS}, tmp_path / "c.safetensors")
    assert verify.main(["verify", *(str(tmp_path / name) for name in ("a.pth", "b.pth", "c.safetensors"))]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.endswith("a.pth: ok: 2 tensors in 1 dicts, 36 numbers, with a checksum of every byte")
    assert "1 tensors in 1 dicts, 24 numbers, without checksums" in second
    assert "c.safetensors: ok" in third


def test_everything_damaged_is_named_and_the_rest_still_checked(tmp_path, capsys):
    path = tmp_path / "a.pth"
    writer.save(path, writer.state_dict({"good": NUMBERS, "flipped": NUMBERS + 1, "x\x1bnan": NUMBERS * np.nan}))
    path.write_bytes(path.read_bytes().replace((NUMBERS + 1).tobytes(), NUMBERS.tobytes()))
    assert verify.main(["verify", str(tmp_path / "nowhere"), str(path)]) == 2
    said = capsys.readouterr()
    assert "nowhere: 1 damaged: nothing was checked" in said.out
    assert "a.pth: 3 damaged: 3 tensors" in said.out
    kinds = "a run or a data set or rounds of training or a folder of exports or an adaptation or "
    assert f"nowhere does not exist; expected {kinds}" in said.err
    assert "its member data/1 is damaged" in said.err
    assert "flipped: " in said.err
    assert "x\\x1bnan: 24 of 24 numbers are not finite" in said.err
    assert "good" not in said.err


def test_what_holds_no_state_dict(tmp_path, capsys):
    writer.save(tmp_path / "a.pth", {"epoch": 3})
    assert verify.main(["verify", str(tmp_path / "a.pth")]) == 2
    assert "'epoch' is no tensor" in capsys.readouterr().err


def test_a_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert verify.verify(tmp_path / "pipe").damage
