"""Folders whose links are followed, reads that never wait."""

import contextlib
import os
from pathlib import Path

import pytest

from cion_jax.common import files
from cion_jax.common.errors import UserError


def test_links_are_followed_and_loops_end(tmp_path):
    for name in ("in/a/1", "else/b/2"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (tmp_path / "in" / "b").symlink_to(tmp_path / "else" / "b")
    (tmp_path / "else" / "b" / "up").symlink_to(tmp_path / "in")
    names = [str(path.relative_to(tmp_path / "in")) for path in files.walk(tmp_path / "in")]
    assert names == ["a", "a/1", "b", "b/2", "b/up"]
    assert [path.name for path in files.walk(tmp_path / "in", depth=1)] == ["a", "b"]


def test_only_regular_files_are_read(tmp_path):
    (tmp_path / "f").write_bytes(b"x")
    os.mkfifo(tmp_path / "pipe")
    assert files.read_regular(tmp_path / "f") == b"x"
    for path, kind in ((tmp_path / "pipe", "a pipe"), (tmp_path, "a folder"), ("/dev/zero", "a device")):
        with pytest.raises(OSError, match=f"got {kind}, expected a regular file"):
            files.read_regular(path)


def test_an_output_is_a_new_file_or_one_to_be_replaced(tmp_path):
    there, pipe = tmp_path / "there", tmp_path / "pipe"
    there.write_text("mine")
    os.mkfifo(pipe)
    assert files.replaceable(tmp_path / "new" / "f", "--output") == tmp_path / "new" / "f"
    assert (tmp_path / "new").is_dir()
    for path, why in (
        (there, "is there already; give another name, or --overwrite"),
        (pipe, "is no regular file"),
        (tmp_path, "is a folder"),
        (Path("/dev/null"), "is no regular file"),
        (there / "f", "is no folder; give another name"),
        (tmp_path / ("x" * 300), "File name too long"),
    ):
        with pytest.raises(UserError, match=f"--output=.* {why}|--output=.*{why}"):
            files.replaceable(path, "--output", overwrite=path != there)
    assert files.replaceable(there, "--output", overwrite=True) == there


def test_an_output_is_never_an_input(tmp_path):
    (tmp_path / "in").mkdir()
    picture, other = tmp_path / "in" / "a.jpg", tmp_path / "b.jpg"
    picture.touch()
    other.touch()
    (tmp_path / "link").symlink_to(picture)
    os.link(picture, tmp_path / "hard")
    for path in (picture, tmp_path / "link", tmp_path / "hard"):
        with pytest.raises(UserError, match="is one of the files that are read"):
            files.replaceable(path, "--output", overwrite=True, inputs=[other, picture])
    with pytest.raises(UserError, match="is one of the files that are read"):
        files.replaceable(picture, "--output", overwrite=True, inputs=[tmp_path / "nowhere", tmp_path / "in"])
    assert files.replaceable(tmp_path / "in" / "new", "--output", inputs=[tmp_path / "in"])


def test_what_fails_leaves_the_old_file(tmp_path):
    path = tmp_path / "f"
    files.write_text(path, "old")
    with contextlib.suppress(KeyboardInterrupt), files.finished(path) as part:
        part.write_text("ne")
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert [*tmp_path.iterdir()] == [path]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_texts_of_spreadsheets_are_read(tmp_path, encoding):
    (tmp_path / "t.csv").write_bytes("a,ö\n".encode(encoding))
    assert files.read_text(tmp_path / "t.csv") == "a,ö\n"


def test_what_is_no_text_is_named(tmp_path):
    (tmp_path / "t.csv").write_bytes("ö".encode("latin-1"))
    with pytest.raises(UserError, match=r"t.csv is no text in UTF-8, which was expected: .*; save it so"):
        files.read_text(tmp_path / "t.csv")
    with pytest.raises(UserError, match=r"cannot be read: got a folder"):
        files.read_text(tmp_path)
