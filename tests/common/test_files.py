"""Folders whose links are followed, reads that never wait."""

import os

import pytest

from cion_jax.common import files


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
