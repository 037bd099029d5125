"""The study of what pre-training learns: how its rows group images, what they train, how they are summed up."""

import json

import cv2
import numpy as np
import pytest

from benchmarks import evidence
from benchmarks.denoise_quality import Case
from cion_jax.data.records import Index

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
    known = evidence.Noisy(CASE, files, tmp_path / "images")
    counts = {}
    for name in ("instance", "tracklet", "oracle"):
        study.shards(name, 0, known)
        counts[name] = np.bincount(Index.load(study.folder("data", name, 0)).identity).tolist()
    assert counts == {"instance": [2, 3, 3], "tracklet": [2, 3, 3], "oracle": [5, 2]}


def test_the_commands_of_a_row(study, tmp_path):
    for name in ("instance", "oracle"):
        folder = study.folder("data", name, 3)
        folder.mkdir(parents=True)
        Index(np.repeat(np.arange(48), 49), np.repeat(np.arange(48), 49)).save(folder)
    train, score = study.commands("instance", 3)
    # 100 steps of 48 images are two passes through 2,352, and a little: two would end before the hundredth.
    asked = {"identity": "instance", "seed": "3", "train.epochs": "3", "train.steps": "100", "model.prototypes": "64"}
    found = dict(part.removeprefix("--config.").split("=") for part in train if part.startswith("--config."))
    assert found == {"data.path": str(tmp_path / "data" / "instance-3"), **asked}
    assert f"--checkpoint={tmp_path / 'runs' / 'instance-3'}" in score
    assert "--config.identity=identity" in study.commands("oracle", 3)[0]
    ((*_, untrained),) = study.commands("none", 3)
    assert untrained == "--checkpoint=random:resnet18_ibn@64x32"


def test_a_row_that_is_done_is_not_done_again(tmp_path, monkeypatch, capsys):
    values = {"mAP": 0.02, "rank1": 0.1, "mINP": 0.01}
    line = {"row": "instance", "seed": 0, "steps": 100, **values}
    better = {"row": "ours", "seed": 0, "steps": 100, **values, "mAP": 0.05}
    (tmp_path / evidence.LINES).write_text("".join(json.dumps(each) + "\n" for each in (line, better)))
    flags = [f"--data={tmp_path / 'nowhere'}", "--onnx=nowhere.onnx", f"--out={tmp_path}", "--rows=instance,ours"]
    monkeypatch.setattr("sys.argv", ["evidence", *flags, "--seeds=0"])
    evidence.main()  # would fail where it read the data
    assert "| ours | 1 | 100 | 5.00 | 10.00 | 1.00 | +3.00 (1 of 1) |" in capsys.readouterr().out


def test_seeds_are_summed_up_by_hand(capsys):
    pairs = [("instance", 0, 0.01), ("instance", 1, 0.03), ("ours", 0, 0.03), ("ours", 1, 0.03)]
    evidence.summary(
        [{"row": r, "seed": s, "steps": 9, "mAP": mean, "rank1": 0.1, "mINP": 0.01} for r, s, mean in pairs]
    )
    (ours,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("| ours"))
    # Ahead by 2 in the first seed, by 0 in the second; the deviation of 1 and 3 is the square root of 2.
    assert ours == "| ours | 2 | 9 | 3.00 +- 0.00 | 10.00 +- 0.00 | 1.00 +- 0.00 | +1.00 (1 of 2) |"


def test_an_unknown_row_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("sys.argv", ["evidence", "--data=x", "--onnx=x", f"--out={tmp_path}", "--rows=our"])
    with pytest.raises(SystemExit):
        evidence.main()
    assert "--rows=our: no such row; there are none, instance" in capsys.readouterr().err
