"""An adaptation from pictures to the exported network, in seconds."""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import load_file

import cion_jax
from cion_jax.adapt import adapt, job_of
from cion_jax.common.errors import UserError
from cion_jax.rounds.halves import Score
from cion_jax.rounds.run import LeftError, Round, best, better
from cion_jax.verify import verify
from tests import toy

NETWORK = f"random:{toy.Toy.__name__.lower()}@32x16"
RECIPE = Path(__file__).with_name("recipe.py")


def run(people, output, asked_to_leave=lambda: False, **changes):
    options = {"rounds": 2, "steps": 3, "config": str(RECIPE)} | changes
    return adapt(job_of("market1501", str(people), NETWORK, output, {}, **options), asked_to_leave)


@pytest.fixture(scope="module")
def done(people, tmp_path_factory):
    output = tmp_path_factory.mktemp("adapt") / "out"
    run(people, output)
    return output


def test_writes_the_network_and_a_report(done):
    report = json.loads((done / "report.json").read_text())
    assert report["rounds"][0]["round"] == 0
    assert len(report["rounds"]) >= 2
    assert [row["rise"][0] <= row["rise"][1] for row in report["rounds"][1:]] == [True] * (len(report["rounds"]) - 1)
    kept = cion_jax.load(report["rounds"][report["kept"]]["checkpoint"])
    assert cion_jax.load(done / "export").digest() == kept.digest()
    assert {path.name for path in (done / "export").iterdir()} == {
        *("weights.safetensors", "model.onnx", "model_uint8.onnx", "example.py", "README.md", "SHA256SUMS"),
    }
    page = (done / "report.html").read_text()
    assert page.count('class="pair"') == 12
    assert "data:image/jpeg;base64," in page


def rounds(*qualities):
    """Rounds whose quality is known to 0.01."""
    spread = [-0.02, *[-0.01, 0, 0.01] * 10, 0.02]
    draws = [np.random.default_rng(i).permutation(spread) for i in range(len(qualities))]
    return [
        Round(i, "", Score(quality, 0, 0, {}, (quality + draw).tolist()))
        for i, (quality, draw) in enumerate(zip(qualities, draws, strict=True))
    ]


@pytest.mark.parametrize(
    ("qualities", "kept"),
    [
        ((0.8, 0.9, 0.95), 2),
        ((0.8, 0.9, 0.895), 2),  # within chance of the one before
        ((0.8, 0.9, 0.7), 1),  # shown to be worse
        ((0.8, 0.805), 0),  # what was given is not given up for chance
        ((0.8, 0.805, 0.9), 2),
        ((0.8, 0.7, 0.69), 0),
    ],
)
def test_which_network_is_kept(qualities, kept):
    assert best(rounds(*qualities)).number == kept


@pytest.mark.parametrize(("after", "goes_on"), [(0.801, True), (0.8, False), (0.9, True), (0.7, False)])
def test_a_round_that_brings_nothing_is_the_last(after, goes_on):
    assert better(*rounds(0.8, after)) is goes_on


def test_again_it_changes_nothing(people, done):
    before = {path: path.read_bytes() for path in done.rglob("*") if path.is_file() and path.suffix != ".html"}
    run(people, done)
    after = {path: path.read_bytes() for path in done.rglob("*") if path.is_file() and path.suffix != ".html"}
    assert before == after


@pytest.mark.slow
@pytest.mark.parametrize("calls", [0, 1, 2], ids=["before identities", "before training", "while training"])
def test_left_and_resumed_it_is_the_undisturbed_one(people, done, tmp_path, calls):
    asked = itertools.chain([False] * calls, itertools.repeat(True))
    with pytest.raises(LeftError):
        run(people, tmp_path / "out", lambda: next(asked))
    assert (tmp_path / "out" / "round1" / "run" / "checkpoints").is_dir() == (calls == 2)
    run(people, tmp_path / "out")
    texts = [(folder / "report.json").read_text().replace(str(folder), "") for folder in (done, tmp_path / "out")]
    assert texts[0] == texts[1]
    files = [load_file(folder / "export" / "weights.safetensors") for folder in (done, tmp_path / "out")]
    for name, array in files[0].items():
        np.testing.assert_array_equal(files[1][name], array, err_msg=name)


@pytest.mark.slow
def test_by_distillation(people, tmp_path):
    run(people, tmp_path / "out", rounds=1, config=f"{RECIPE}:distill")
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [row["round"] for row in report["rounds"]] == [0, 1]
    assert json.loads((tmp_path / "out/round1/run/config.json").read_text())["task"] == "distill"


def test_another_job_does_not_take_the_folder(people, done):
    with pytest.raises(UserError, match="was begun with other settings: steps was 3, is 4"):
        run(people, done, steps=4)


def test_an_input_that_has_changed_is_told_in_words_of_this_command(people, done):
    picture = next(people.iterdir())
    before = picture.stat()
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns + 10**9))
    try:
        with pytest.raises(UserError, match=r"the input has changed since .*: 1 of 2 videos, .*; give another --outp"):
            run(people, done)
    finally:
        os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_data_set_is_read_where_it_came_from(people, done, tmp_path):
    job = job_of("", str(done / "round1" / "data"), "osnet_x0_25=w.pth", tmp_path, {})
    assert (job.source, job.input, job.checkpoint) == ("market1501", people, "file:osnet_x0_25=w.pth")
    with pytest.raises(UserError, match="is no data set of data_prep; say its format, --source="):
        job_of("", str(people), NETWORK, tmp_path, {})


def test_too_few_tracks(people, tmp_path):
    (tmp_path / "few").mkdir()
    for path in sorted(people.iterdir())[:12]:
        shutil.copy(path, tmp_path / "few")
    with pytest.raises(UserError, match="3 tracks of two images or more that can be read, expected at least 8"):
        run(tmp_path / "few", tmp_path / "out")


def test_another_network_under_the_same_name_is_refused(people, done, tmp_path):
    output = shutil.copytree(done, tmp_path / "out")
    job = json.loads((output / "job.json").read_text())
    (output / "job.json").write_text(json.dumps(job | {"network": "0" * 64}))
    with pytest.raises(UserError, match="was begun with other settings: network was '000"):
        run(people, output)


def test_a_wrong_recipe_is_told_before_identities_are_found(people, tmp_path):
    with pytest.raises(UserError, match="the recipe adapt is of supervised or distill, got 'foo'"):
        run(people, tmp_path / "out", config="adapt:foo")
    assert not (tmp_path / "out" / "round1").exists()


def test_a_data_set_is_read_again_as_it_was(tmp_path, monkeypatch, capsys):
    settings = {"mot.first_frame": 0, "mot.box": None, "tracks": None, "seed": 7, "annotations.root": None}
    metrics = {"source": {"name": "mot", "input": "videos"}, "settings": settings}
    monkeypatch.setattr(sys.modules["cion_jax.adapt"], "Dataset", lambda folder: SimpleNamespace(metrics=metrics))
    (tmp_path / "metrics.json").touch()
    job = job_of("", str(tmp_path), NETWORK, tmp_path / "out", {})
    assert (job.source, str(job.input), job.data.mot.first_frame, job.data.seed) == ("mot", "videos", 0, 0)
    assert "videos is read as for " in capsys.readouterr().err
    given = {"mot": {"first_frame": 1}}
    assert job_of("", str(tmp_path), NETWORK, tmp_path / "out", given).data.mot.first_frame == 1


DAMAGE = [
    ("job.json", "[]"),
    ("seconds.json", "[]"),
    ("seconds.json", '{"probe": "x"}'),
    ("plan.json", '{"steps": -5, "rounds": 1, "seconds": 0}'),
    ("round1/score.json", "{}"),
    ("round1/score.json", '{"quality": NaN, "reciprocal_rank": 1, "rank1": 1, "operating": {}, "resampled": []}'),
    ("round0/probe.npy", "x"),
    ("probe.npz", "x"),
]


@pytest.mark.parametrize(("name", "text"), DAMAGE)
def test_a_damaged_file_is_named(people, done, name, text):
    path = done / name
    whole = path.read_bytes()
    path.write_text(text)
    try:
        with pytest.raises(UserError, match=f"{name} is damaged: .*; (give another --output|delete)"):
            run(people, done)
    finally:
        path.write_bytes(whole)


def test_a_damaged_export_is_written_again(people, done, capsys):
    weights = done / "export" / "weights.safetensors"
    whole = bytearray(weights.read_bytes())
    weights.write_bytes(bytes([*whole[:-1], whole[-1] ^ 1]))
    run(people, done)
    assert "weights.safetensors is not what was written" in capsys.readouterr().err
    assert verify(done / "export").damage == []


def test_all_of_it_is_verified(done):
    report = verify(done)
    assert report.damage == []
    assert [name for name in ("round1/data: ", "round1/run: ", "export: ") if name not in report.looked_at] == []
    (shard,) = (done / "round1" / "data").glob("*array_record*")
    whole = shard.read_bytes()
    shard.write_bytes(whole[:9000] + bytes([whole[9000] ^ 1]) + whole[9001:])
    try:
        assert all(line.startswith("round1/data: ") for line in verify(done).damage)
        assert verify(done).damage
    finally:
        shard.write_bytes(whole)
