"""What comes in wrong is set aside by reason and listed; the rest is not disturbed.

`test_pipeline` has features that are no numbers, zero, or of another width; `test_names` names that are no text;
`test_killed` full disks and what a crash leaves behind.
"""

import json
import tracemalloc

import numpy as np
import pytest

from data_prep.config import Config
from data_prep.denoise.settings import Thresholds
from data_prep.output.report import page
from data_prep.pipeline import beam, per_video, run
from data_prep.pipeline.workdir import Work
from data_prep.types import Image
from tests.data_prep.painted import BLUE, GREEN, RED, by_key, job, paint


@pytest.fixture(autouse=True)
def mean_color(monkeypatch):
    monkeypatch.setattr(page, "write", lambda folder, run: None)


def listed(output):
    lines = [json.loads(line) for line in (output / "rejected.jsonl").read_text().splitlines()]
    return [(line["reason"], line["where"]) for line in lines]


def test_every_bad_entry_of_a_list_is_counted_and_listed(tmp_path):
    root = paint(tmp_path / "in" / "bilder ü")
    entries = [{"file_path": f"bilder ü/hof 1/t0/00{i}.jpg", "id": 4} for i in (0, 1, 1, 9)]
    entries += [{"file_path": path, "id": 4} for path in ("../secret.jpg", "/etc/x.jpg", "a/../../x.jpg", "x.exe")]
    (tmp_path / "secret.jpg").write_bytes((root / "hof 1" / "t0" / "000.jpg").read_bytes())
    (root.parent / "list.json").write_text(json.dumps([*entries, 7]))
    metrics = run.run(job(root.parent, tmp_path / "out", "annotations"))
    assert metrics["rejected"] == {
        "duplicate key": 1,
        "malformed entry": 2,
        "missing file": 1,
        "path outside the image root": 3,
    }
    assert len(listed(tmp_path / "out")) == sum(metrics["rejected"].values())
    assert ("missing file", "bilder ü/4/hof 1/t0/009.jpg") in listed(tmp_path / "out")
    assert [row["path"] for row in by_key(tmp_path / "out").values()] == [e["file_path"] for e in entries[:2]]


def test_every_input_is_either_in_the_provenance_or_in_the_list(tmp_path):
    root = paint(tmp_path / "in", {"ein Fest": {"日本 1": [RED] * 5, "b": [GREEN, BLUE, GREEN, GREEN]}})
    (root / "ein Fest" / "b" / "000.jpg").write_bytes(b"")
    (root / "ein Fest" / "b" / "notes.txt").touch()
    (root / "readme").touch()
    metrics = run.run(job(root, tmp_path / "out", max_tracklet_images=3))
    given = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    kept = {row["path"] for row in by_key(tmp_path / "out").values()}
    aside = {where.replace(f"{root}/", "") for _, where in listed(tmp_path / "out")}
    assert kept | aside == given
    assert not kept & aside
    assert sum(metrics["rejected"].values()) == len(aside) == 2 + 2 + 1 + 1


def test_one_video_a_thousand_times_longer_than_the_others(tmp_path):
    street = {f"short {i}": {"t": [BLUE, BLUE]} for i in range(4)}
    root = paint(tmp_path / "in", street)
    jpeg = (root / "short 0" / "t" / "000.jpg").read_bytes()
    for name, images in (("few", 1), ("many", 1999)):
        (root / "long" / name).mkdir(parents=True)
        for i in range(images):
            (root / "long" / name / f"{i:04d}.jpg").write_bytes(jpeg)
    metrics = run.run(job(root, tmp_path / "out"))
    assert metrics["rejected"] == {"thinned tracklet": 1899}
    assert metrics["levels"][0]["images"] == 8 + 1 + 100
    frames = sorted(row["frame"] for row in by_key(tmp_path / "out").values() if row["tracklet"] == "many")
    assert (frames[0], frames[-1], len(frames)) == (0, 1998, 100)
    assert set(np.diff(frames)) == {20, 21}
    assert metrics["levels"][3]["identities"] == 1


def synthetic(work, videos, images, width=64):
    rng = np.random.default_rng(0)
    for video in videos:
        tracklet = np.arange(images) // 10
        some = [Image(f"{video}/{i}", video, f"{t:05d}", i, "x") for i, t in enumerate(tracklet.tolist())]
        np.save(work.file(video, "npy"), rng.standard_normal((images, width)).astype(np.float32))
        per_video.write_table(work.file(video, "arrow"), per_video.references(some, [-1] * images))


def peak(work, videos):
    settings, thresholds = Config(preset="paper").denoising, Thresholds(0.2, 0.1, 0)
    prepare = lambda: lambda video: per_video.denoise(work, video, settings, thresholds, False)  # noqa: E731
    tracemalloc.start()
    beam.each_video("levels", work, videos, "levels", prepare)
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found


def test_memory_is_bounded_by_the_largest_video(tmp_path):
    work, videos = Work(tmp_path), [f"{i:02d}" for i in range(21)]
    work.folder.mkdir()
    synthetic(work, videos, 600, width=256)
    peak(work, videos[:1])  # what is imported only now
    few, many = (peak(work, some) for some in (videos[1:3], videos[3:]))
    assert few > 600 * 256 * 8  # one video in double precision
    assert many < 1.3 * few


def test_who_met_is_asked_without_looking_at_other_videos(tmp_path):
    # Two tracklets on the same frames in one of many videos: they stay apart, and so do their numbers.
    names = [f"{person:04d}_c{camera}s1_{t:06d}_0{person}" for camera in (1, 2, 3) for person in (1, 2) for t in (1, 2)]
    (tmp_path / "in").mkdir()
    jpeg = (paint(tmp_path / "red", {"v": {"t": [RED]}}) / "v" / "t" / "000.jpg").read_bytes()
    for name in names:
        (tmp_path / "in" / f"{name}.jpg").write_bytes(jpeg)
    metrics = run.run(job(tmp_path / "in", tmp_path / "out", "market1501", cannot_link=True))
    assert [level["identities"] for level in metrics["levels"]] == [6, 6, 6, 2]
    for identity in (0, 1):
        seen = [row for row in by_key(tmp_path / "out").values() if row["identity"] == identity]
        assert len({row["video"] for row in seen}) == 3
        assert len({row["frame"] for row in seen}) == 2 == len(seen) / 3
