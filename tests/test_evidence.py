"""The study of what pre-training learns: how its rows group images, what they train, how they are summed up."""

import dataclasses
import json
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from benchmarks import evidence, noisy_market
from benchmarks.denoise_quality import Case
from cion_jax.common import packaged_configs
from cion_jax.data.records import METRICS_FILE, Index
from cion_jax.tasks import freeze

# Two tracklets of person 0 in two videos, one of person 1 with somebody else's image (-1: nobody) among them.
CASE = Case(
    rows=np.eye(8, dtype=np.float32),
    video=np.array([0, 0, 0, 0, 0, 1, 1, 1]),
    tracklet=np.array([0, 0, 1, 1, 1, 2, 2, 2]),
    frame=np.arange(8),
    truth=np.array([0, 0, 1, 1, -1, 0, 0, 0]),
)


@pytest.fixture
def study(tmp_path):
    return evidence.Study(tmp_path / "market", tmp_path, 100, "market_small", {"model.prototypes": 64})


def test_a_row_is_the_images_that_it_groups(study, tmp_path):
    files = [f"{row}.png" for row in range(8)]
    (tmp_path / "images").mkdir()
    for row, name in enumerate(files):
        cv2.imwrite(str(tmp_path / "images" / name), np.full((32, 16, 3), 20 * row, np.uint8))
    known = {0: noisy_market.Noisy(CASE, files, tmp_path / "images")}.__getitem__
    counts = {}
    for name in ("instance", "tracklet", "oracle"):
        study.shards(name, 0, known)
        study.shards(name, 0, {}.__getitem__)  # what is there needs no images
        counts[name] = np.bincount(Index.load(study.folder("data", name, 0)).identity).tolist()
    assert counts == {"instance": [2, 3, 3], "tracklet": [2, 3, 3], "oracle": [5, 2]}


def test_the_commands_of_a_row(study, tmp_path):
    for name in ("instance", "oracle"):
        folder = study.folder("data", name, 3)
        folder.mkdir(parents=True)
        Index(np.repeat(np.arange(48), 49), np.repeat(np.arange(48), 49)).save(folder)
    train, score = study.commands("instance", 3)
    asked = {"identity": "instance", "seed": "3", "train.steps": "100", "model.prototypes": "64"}
    asked |= {"train.epochs": "1", "data.steps_per_epoch": "100"}  # less than a pass through all images
    found = dict(part.removeprefix("--config.").split("=") for part in train if part.startswith("--config."))
    assert found == {"data.path": str(tmp_path / "data" / "instance-3"), **asked}
    assert f"--checkpoint={tmp_path / 'runs' / 'instance-3'}" in score
    assert not any("identity=" in part for part in study.commands("oracle", 3)[0])
    ((*_, untrained),) = study.commands("none", 3)
    assert untrained == "--checkpoint=random:resnet18_ibn@64x32"


@pytest.mark.parametrize(
    ("config", "steps", "epochs", "length"),
    [("market_small", 200, 1, 200), ("market_small", 270, 2, 135), ("adapt", 100, 20, 5)],  # a pass is 269 steps
)
def test_schedules_are_the_same_whatever_a_row_learns_from(config, steps, epochs, length):
    frozen = freeze(packaged_configs.load(config), {"data.path": "x"})
    assert evidence.schedule(frozen, steps) == {"train.epochs": epochs, "data.steps_per_epoch": length}


def _written(study, name):
    folder = study.folder("data", name, 0)
    folder.mkdir(parents=True)
    (folder / METRICS_FILE).touch()
    Index(np.repeat(np.arange(60), 4), np.arange(240)).save(folder)


def test_a_row_that_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    study = evidence.Study(tmp_path / "nowhere", tmp_path, 400, "market_small", {})
    found = []
    for name, mean in (("instance", 0.02), ("ours", 0.05)):
        _written(study, name)
        values = {"mAP": mean, "rank1": 0.1, "mINP": 0.01, "commands": evidence.said(study.commands(name, 0))}
        found.append({"row": name, "seed": 0, "steps": 100, **values})
    (tmp_path / evidence.LINES).write_text("".join(json.dumps(each) + "\n" for each in found))
    flags = [f"--data={tmp_path / 'nowhere'}", "--onnx=nowhere.onnx", f"--out={tmp_path}", "--rows=instance,ours"]
    monkeypatch.setattr("sys.argv", ["evidence", *flags, "--seeds=0", f"--picture={tmp_path / 'rows.png'}"])
    evidence.main()  # would fail where it read the data
    assert "| ours | 1 | 100 | 5.00 | 10.00 | 1.00 | +3.00 (1 of 1) |" in capsys.readouterr().out
    assert cv2.imread(str(tmp_path / "rows.png")) is not None


def test_what_was_done_in_another_way_does_not_count(study):
    line = {"row": "ours", "seed": 0}
    assert study.done([line]) == []  # there is no data set
    _written(study, "ours")
    line["commands"] = evidence.said(study.commands("ours", 0))
    assert study.done([line]) == [line]
    assert dataclasses.replace(study, steps=101).done([line]) == []
    assert dataclasses.replace(study, images="-noise2").done([line]) == []


def test_people_who_are_only_tested(tmp_path):
    names = ["0002_c1s1_000451_03.jpg", "0002_c1s1_000551_01.jpg", "0002_c2s1_000001_01.jpg", "0007_c1s1_000001_01.jpg"]
    for name in names:
        cv2.imwrite(str(tmp_path / name), np.zeros((8, 4, 3), np.uint8))
    images = [SimpleNamespace(path=name, truth=int(name[:4])) for name in names]
    market = SimpleNamespace(images=images, source=SimpleNamespace(root=tmp_path))
    folder = noisy_market.held_out(market, np.array([2]), tmp_path / "held_out")
    written = {part.name: sorted(path.name for path in part.iterdir()) for part in folder.iterdir()}
    assert written == {"query": [names[0], names[2]], "bounding_box_test": [names[1]]}


def test_less_data_is_a_share_of_the_people_whole():
    truth = np.array([0, 1, 2, 3, 4, -1] * 1000)
    apart = np.array([4])
    everyone = noisy_market.kept(truth, 0, apart)
    assert (everyone == (truth != 4)).all()
    half, quarter = (noisy_market.kept(truth, 0, apart, share) for share in (0.5, 0.25))
    assert set(np.unique(truth[half])) > set(np.unique(truth[quarter]))
    assert [len(np.unique(truth[some & (truth >= 0)])) for some in (half, quarter)] == [2, 1]
    assert half[truth >= 0].sum() == 2000
    assert quarter[truth >= 0].sum() == 1000
    # Of 1,000 pieces of junk half are kept: three deviations of that number are 47.
    assert abs(half[truth < 0].sum() - 500) < 47
    assert not (quarter & ~half).any()


@pytest.mark.parametrize("flag", ["--share=0", "--share=1.5", "--share=nan"])
def test_a_share_is_told(flag, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["evidence", "--data=d", "--onnx=o", "--out=out", flag])
    with pytest.raises(SystemExit):
        evidence.main()
    assert "above 0, at most 1" in capsys.readouterr().err


def test_rows_share_a_card(study):
    assert study._environment(0.45) == {"JAX_PLATFORMS": "cpu"}
    shared = dataclasses.replace(study, platform="cuda")._environment(0.45)
    assert shared == {"JAX_PLATFORMS": "cuda,cpu", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"}


def test_a_start_from_weights(tmp_path):
    for config in ("adapt", "adapt:distill"):
        study = evidence.Study(tmp_path, tmp_path, 100, config, {"init_from": "w.safetensors"})
        ((*_, given),) = study.commands("none", 0)
        assert given == "--checkpoint=file:osnet_x0_25@256x128=w.safetensors"


def test_seeds_are_summed_up_by_hand(capsys):
    pairs = [("instance", 0, 0.01), ("instance", 1, 0.03), ("ours", 0, 0.03), ("ours", 1, 0.03)]
    evidence.summary(
        [{"row": r, "seed": s, "steps": 9, "mAP": mean, "rank1": 0.1, "mINP": 0.01} for r, s, mean in pairs]
    )
    (ours,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours"))
    # Ahead by 2 in the first seed, by 0 in the second: t = 1 with one degree of freedom, Cauchy's quartile.
    assert ours == "| ours | 2 | 9 | 3.00 +- 0.00 | 10.00 +- 0.00 | 1.00 +- 0.00 | +1.00 (1 of 2, p = 0.500) |"


def test_an_unknown_row_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["evidence", "--data=x", "--onnx=x", f"--out={tmp_path}", "--rows=our"])
    with pytest.raises(SystemExit):
        evidence.main()
    assert "--rows=our: no such row; there are none, instance" in capsys.readouterr().err
