"""Names that are no text: on some file systems any bytes can be one. The whole road, report and card included."""

import json
import os

import pytest

import data_prep
from cion_jax.common.errors import UserError
from tests.data_prep.painted import BLUE, GREEN, RED, by_key, paint
from tests.data_prep.test_bad_input import listed
from tests.data_prep.test_main import call

BAD = os.fsdecode(b"stra\xdfe")


@pytest.fixture
def root(tmp_path):
    """Below a folder whose name is no text, too: one such image, one tracklet, one whole video, one stray file."""
    try:
        (tmp_path / BAD).mkdir()
    except OSError:
        pytest.skip("this file system takes nothing but text for names")
    street = {"v": {"t0": [RED] * 3, BAD: [GREEN]}, BAD: {"t0": [BLUE] * 2}}
    root = paint(tmp_path / BAD, street)
    (root / "v" / "t0" / "001.jpg").rename(root / "v" / "t0" / f"{BAD}.jpg")
    (root / f"{BAD}.txt").touch()
    return root


def test_they_are_set_aside_and_told_and_nothing_else_is(tmp_path, root):
    out = data_prep.run("tracklets", root, tmp_path / "out", "mean")
    assert out.metrics["rejected"] == {"file out of place": 1, "name is no text": 3}
    assert {where for reason, where in listed(out.path) if reason == "name is no text"} == {
        f"v/t0/{BAD}.jpg",
        f"v/{BAD}/000.jpg",
        BAD,
    }
    assert sorted(by_key(out.path)) == ["v/t0/000.jpg", "v/t0/002.jpg"]
    escaped = r"stra\udcdfe"
    for name in ("report.html", "README.md", "metrics.json"):
        assert escaped in (out.path / name).read_text("utf-8"), name
    assert json.loads((out.path / "metrics.json").read_text())["source"]["input"] == str(root)


def test_the_command_says_them_escaped(tmp_path, root):
    done = call("--source=tracklets", f"--input={root}", "--embedder=color", "--output=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert r"3 name is no text, first stra\udcdfe: a whole video; expected a name in UTF-8" in done.stdout


def test_an_output_has_to_be_text(tmp_path):
    root = paint(tmp_path / "in", {"v": {"t0": [RED] * 2}})
    with pytest.raises(UserError, match="is no text in UTF-8; give another one"):
        data_prep.run("tracklets", root, tmp_path / BAD, "mean")
