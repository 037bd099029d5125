"""Paths of flags: local ones, `~` included."""

from pathlib import Path

import pytest

from cion_jax.common.errors import UserError
from cion_jax.common.paths import local_path


def test_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert local_path("~/runs", "--workdir") == Path("/home/me/runs")
    with pytest.raises(UserError, match=r"--workdir=~nobody-of-this-name/x: .*write the path out"):
        local_path("~nobody-of-this-name/x", "--workdir")


@pytest.mark.parametrize("url", ["gs://b/run", "s3://b", "https://h/f.pth", "hdfs://x/y", str(Path("gs://b/run"))])
def test_urls_are_refused_with_what_to_do(url):
    with pytest.raises(UserError, match=f"--data={url} is a URL.*gcloud storage cp -r.*gcsfuse"):
        local_path(url, "--data")


@pytest.mark.parametrize("path", ["a:b", "C:/x", "/a://b", "./gs://b", "x", ""])
def test_names_with_colons_are_none(path):
    assert local_path(path, "--data") == Path(path)
