import json

import pytest

from cion_jax.common.files import finished
from data_prep.pipeline.workdir import OutputError, Work


def test_file_names_are_safe_and_distinct(tmp_path):
    work = Work(tmp_path / "out")
    keys = ["a", "a/b", "a%2Fb", "a b", "..", ".", "ä", "a\n", "x" * 400, "x" * 401, "é" * 100, "a.b", "A:b\\c"]
    paths = [work.file(key, "npy") for key in keys]
    assert len(set(paths)) == len(keys)
    work.folder.mkdir(parents=True)
    for path in paths:
        assert path.parent == work.folder
        path.write_text("")
    assert work.file("a/b", "npy").name == "a%2Fb.npy"


def test_claim(tmp_path):
    settings = {"source": "mot", "config": {"seed": 0, "r_s": None}}
    work = Work(tmp_path / "new" / "out")
    assert work.claim(settings) is False
    assert work.claim(settings) is False
    (work.output / "metrics.json").write_text("{}")
    assert work.claim(settings) is False  # damaged: it is written again
    metrics = {"levels": [], "thresholds": {}, "selection": {"images": 1, "identities": 1}, "rejected": {}}
    (work.output / "metrics.json").write_text(json.dumps(metrics))
    assert work.claim(settings) is True
    with pytest.raises(OutputError, match=r"config\.seed: 0 there, 1 now"):
        work.claim({"source": "mot", "config": {"seed": 1, "r_s": None}})


def test_what_is_forgotten_of_a_video_is_all_of_it_and_no_other(tmp_path):
    work = Work(tmp_path)
    work.folder.mkdir()
    kept = [work.file("a.b", "npy"), work.file("a.b.c", "npy"), work.file("b", "npy"), work.folder / "a.json"]
    gone = [work.file("a", kind) for kind in ("arrow", "npy", "whatever_a_method_keeps")]
    for path in (*kept, *gone):
        path.touch()
    work.forget(["a", "never seen"])
    assert sorted(work.folder.iterdir()) == sorted(kept)


def test_a_folder_with_something_else_is_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(OutputError, match="is not empty"):
        Work(tmp_path).claim({})
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(OutputError, match="is not empty"):
        Work(tmp_path / "thesis.tex").claim({})


def test_a_run_killed_while_claiming_starts_anew(tmp_path):
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / ".run.json.part").write_text("{")
    assert Work(tmp_path).claim({"a": 1}) is False


def test_a_file_is_complete_or_absent(tmp_path):
    def interrupted():
        with finished(tmp_path / "x") as part:
            part.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with finished(tmp_path / "x") as part:
        part.write_text("whole")
    assert (tmp_path / "x").read_text() == "whole"
