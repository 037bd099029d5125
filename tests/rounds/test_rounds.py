"""Rounds of self-training: the command's pieces, and two rounds from pictures to a table."""

import json
from pathlib import Path

import numpy as np
import pytest

from cion_jax.common import cli, packaged_configs
from cion_jax.common.errors import UserError
from cion_jax.rounds import __main__ as rounds
from cion_jax.rounds.run import LeftError
from cion_jax.tasks import freeze
from data_prep.config import Config
from tests import toy

RECIPE = f"{Path(__file__).with_name('recipe.py')}:distill"
CHANGES = {
    **{"model.name": toy.Toy.__name__.lower(), "train.epochs": 1, "train.steps": 2},
    **{f"views.global_{view}.{part}": size for view in (1, 2) for part, size in (("height", 32), ("width", 16))},
}


def job(people, output, **changes):
    options = {"source": "market1501", "input": people, "embedder": "color", "output": output, "recipe": RECIPE}
    options |= {"rounds": 2, "scratch": False, "keep_embedder": False, "train": CHANGES}
    return rounds.Rounds(**(options | {"benchmark": "", "data": "", "settings": Config()} | changes))


def test_who_finds_the_identities_of_a_round(tmp_path):
    first = job(tmp_path, tmp_path / "out")
    assert [first._embedder(number) for number in (1, 2)] == ["color", f"flax:{tmp_path / 'out' / 'round1' / 'run'}"]
    both = job(tmp_path, tmp_path / "out", keep_embedder=True)
    assert both._embedder(2) == f"color+flax:{tmp_path / 'out' / 'round1' / 'run'}"


def test_changes_to_the_recipe_are_values():
    texts = (
        "train.steps=3",
        "a=1e-3",
        "name=toy",
        "data.curriculum=((0,2),)",
        "image.mean=0.5,0.4,0.3",
        "on=true",
        "name={[]: 1}",
    )
    assert [cli.change(text, "--train") for text in texts] == [
        ("train.steps", 3),
        ("a", 1e-3),
        ("name", "toy"),
        ("data.curriculum", ((0, 2),)),
        ("image.mean", (0.5, 0.4, 0.3)),
        ("on", True),
        ("name", "{[]: 1}"),
    ]
    with pytest.raises(UserError, match="expected NAME=VALUE"):
        cli.change("train.steps", "--train")


def test_a_change_of_another_type_is_a_mistake():
    with pytest.raises(UserError, match=r"config.data.curriculum takes a tuple, got 'x' \(str\)"):
        freeze(packaged_configs.load("demo"), {"data.curriculum": "x"})


def test_the_table_has_a_row_for_every_round():
    rows = [
        {"round": 1, "embedder": "color", "images": 1200},
        {"round": 2, "embedder": "x", "images": 9, "mAP": 0.1234},
    ]
    assert rounds.table(rows).splitlines() == [
        "| round | images | mAP |",
        "| --- | --- | --- |",
        "| 1 | 1,200 |  |",
        "| 2 | 9 | 0.123 |",
    ]


@pytest.mark.slow
def test_two_rounds_are_left_resumed_and_repeated(people, tmp_path):
    answers = iter([False, False, True])  # left in the first round's training
    with pytest.raises(LeftError):
        job(people, tmp_path / "out").run(lambda: next(answers, True))
    rows = job(people, tmp_path / "out").run()
    assert [row["round"] for row in rows] == [1, 2]
    assert rows == json.loads((tmp_path / "out" / "rounds.json").read_text())
    assert all(0 <= row["pairwise_f1"] <= 1 for row in rows)
    config = json.loads((tmp_path / "out" / "round2" / "run" / "config.json").read_text())
    assert config["init_from"] == str(tmp_path / "out" / "round1" / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.array_record*")}
    assert job(people, tmp_path / "out").run() == rows
    assert before == {path: path.stat().st_mtime_ns for path in before}
    scratch = job(people, tmp_path / "anew", scratch=True, keep_embedder=True).run()
    assert scratch[1]["embedder"].startswith("color+flax:")
    assert np.isfinite(scratch[1]["noise"])


def test_scores_are_remembered_with_what_was_asked(tmp_path, monkeypatch):
    """Another benchmark, or another folder, is another question."""
    calls = []

    def evaluate(run, benchmark, data):
        calls.append((benchmark, data))
        return {"mAP": len(calls) / 10, "rank1": 1.0}

    monkeypatch.setattr(rounds.cion_jax, "evaluate", evaluate)
    asked = [{"benchmark": "folder", "data": name} for name in ("a", "a", "b")]
    scores = [job(tmp_path, tmp_path, **each)._scored(tmp_path)["mAP"] for each in asked]
    assert scores == [0.1, 0.1, 0.2]
    assert calls == [("folder", "a"), ("folder", "b")]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "demoo"}, "did you mean 'demo'"),
        ({"train": {"train.stepz": 1}}, "train.stepz"),
        ({"benchmark": "folder", "data": "nowhere"}, "no folder nowhere/query"),
        ({"benchmark": "folder", "data": "gs://b/x"}, "is a URL"),
    ],
)
def test_mistakes_are_told_before_the_work(people, tmp_path, changes, message):
    with pytest.raises(UserError, match=message):
        job(people, tmp_path / "out", **changes).run()
    assert not (tmp_path / "out").exists()
