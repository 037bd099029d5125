"""Market-1501's folder rewritten as tracklets: nothing lost, nothing told, the order in time kept."""

import itertools
import sys
from collections import Counter

import cv2
import numpy as np
import pytest

from benchmarks import noisy_tracklets
from benchmarks.denoise_quality import Market
from data_prep.sources.market1501 import Market1501
from data_prep.sources.tracklets import Tracklets


@pytest.fixture
def market(tmp_path):
    """Six people in each of two videos, four images each, all on the same frames; gray levels tell them apart."""
    folder = tmp_path / "market" / "bounding_box_train"
    folder.mkdir(parents=True)
    for level, (camera, person, k) in enumerate(itertools.product((1, 2), range(2, 8), range(4))):
        name = f"{person:04d}_c{camera}s1_{25 * k:06d}_01.png"
        picture = np.full((16, 8, 3), 5 * level, np.uint8)
        picture[-1] = 255  # not at the edge in junk, which is shifted
        cv2.imwrite(str(folder / name), picture)
    return folder.parent


def _read(source):
    return [image for video in source.videos() for image in source.read(video)[0]]


def _groups(source):
    """The gray levels of every tracklet in their order, without junk."""
    found = {}
    for image, crop in source.crops(_read(source)):
        if (crop[-1] == 255).all():
            found.setdefault((image.video, image.tracklet), []).append(int(crop[0, 0, 0]))
    return Counter(map(tuple, found.values()))


def test_without_noise_the_tracklets_are_the_true_ones(market, tmp_path):
    assert noisy_tracklets.write(Market(market), 0, 0.0, tmp_path / "out") == 12
    found = Tracklets(tmp_path / "out")
    assert found.videos() == ["c1s1", "c2s1"]
    assert _groups(found) == _groups(Market1501(market))


def test_noise_loses_no_image_and_keeps_the_order_in_time(market, tmp_path):
    noisy_tracklets.write(Market(market), 0, 2.0, tmp_path / "out")
    groups = _groups(Tracklets(tmp_path / "out"))
    assert groups != _groups(Market1501(market))
    for levels in groups:
        times = [level // 5 % 4 for level in levels]
        assert times == sorted(times)
    files = list((tmp_path / "out").rglob("*.png"))
    written = Counter(path.read_bytes() for path in files)
    assert all(written[path.read_bytes()] == 1 for path in (market / "bounding_box_train").iterdir())
    assert len(files) == 48 + 5  # junk: a tenth of them


def test_people_held_out_are_in_the_benchmark_alone(market, tmp_path, monkeypatch, capsys):
    flags = [f"--data={market}", f"--output={tmp_path / 'out'}", "--rate=0", "--held_out=3"]
    monkeypatch.setattr(sys, "argv", ["x", *flags])
    noisy_tracklets.main()
    assert "8 tracklets in" in capsys.readouterr().out
    others = {2, 5}
    seen = {level // 20 % 6 + 2 for levels in _groups(Tracklets(tmp_path / "out")) for level in levels}
    assert seen == set(range(2, 8)) - others
    benchmark = tmp_path / "out_held_out"
    assert {int(path.name[:4]) for path in benchmark.rglob("*.png")} == others
    assert len(list((benchmark / "query").iterdir())) == 4  # a person and camera


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate=3"], "--rate=3"),
        (["--output=."], "--output=."),
        (["--held_out=-5"], "-5: expected 0, or a whole number from 2"),
        (["--held_out=1"], "1: expected 0, or a whole number from 2"),
        (["--held_out=01"], "01: expected 0, or a whole number from 2"),
        (["--held_out=5"], "new_held_out is there already"),
    ],
)
def test_what_cannot_be_is_refused(market, tmp_path, monkeypatch, capsys, flags, message):
    (tmp_path / "new_held_out").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", f"--data={market}", "--output=new", *flags])
    with pytest.raises(SystemExit):
        noisy_tracklets.main()
    assert message in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
