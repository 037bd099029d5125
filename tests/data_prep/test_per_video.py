"""One video through the first stage, from a source that does what the contract allows."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from data_prep.config import Config
from data_prep.pipeline import per_video
from data_prep.pipeline.workdir import Work
from data_prep.types import Image, Reject


class Backwards:
    """A source in memory: yields crops last first, gives some keys twice and loses a crop."""

    identified, timed, rejected, root, container = False, False, [], Path(), None

    def __init__(self, levels, keys=None):
        self.levels = levels
        self.keys = keys or [f"v/t/{i}" for i in range(len(levels))]

    def read(self, video):
        images = [Image(key, video, "t", i, "v.mp4", (i, 0, 4, 8)) for i, key in enumerate(self.keys)]
        return images, [Reject("malformed line", "v.txt:3", "x")]

    def crops(self, images):
        for image in reversed(images):
            level = self.levels[image.frame]
            lost = Reject("box outside the frame", image.key, "")
            yield image, lost if level is None else np.full((8, 4, 3), level, np.uint8)

    def jpeg(self, image):
        return None


class Level:
    """Features are 1 and the crop's brightness."""

    digest = "0" * 64

    def __call__(self, crops):
        return np.array([[1, crop[0, 0, 0]] for crop in crops], np.float32).reshape(-1, 2)


def embed(tmp_path, source):
    work = Work(tmp_path)
    work.folder.mkdir()
    per_video.embed(source, Level(), work, "v", Config())
    table = per_video.read_table(work.file("v", "arrow"))
    rejects = [json.loads(line)["reason"] for line in work.file("v", "rejected").read_text().splitlines()]
    return table, np.load(work.file("v", "npy")), rejects


def test_rows_are_in_the_order_of_reading(tmp_path):
    table, features, rejects = embed(tmp_path, Backwards([10, None, 30, 40]))
    assert table["key"].to_pylist() == ["v/t/0", "v/t/2", "v/t/3"]
    assert features[:, 1].tolist() == [10, 30, 40]
    assert table["crop"].to_pylist() == [2, 1, 0]
    assert table["box"].to_pylist()[1] == [2, 0, 4, 8]
    assert rejects == ["malformed line", "box outside the frame"]


def test_a_key_that_occurs_twice_is_set_aside(tmp_path):
    table, features, rejects = embed(tmp_path, Backwards([10, 20, 30], ["a", "a", "b"]))
    assert table["key"].to_pylist() == ["a", "b"]
    assert features[:, 1].tolist() == [10, 30]
    assert rejects == ["malformed line", "duplicate key"]


def test_a_video_without_crops_leaves_empty_files_and_no_crops(tmp_path):
    table, features, _ = embed(tmp_path, Backwards([None, None]))
    assert len(table) == len(features) == 0
    assert not Work(tmp_path).file("v", "crops").exists()


class Two(Backwards):
    """Two people who walk beside each other for as many frames as there are levels; both tracks are sorted by frame."""

    timed = True

    def read(self, video):
        frames = range(len(self.levels))
        spans = {"a": (0, frames), "b": (20, frames[1:])}
        return [
            Image(f"{video}/{name}/{i:04d}", video, name, i, "v.mp4", (left, 0, 4, 8))
            for name, (left, seen) in spans.items()
            for i in seen
        ], []


def test_tracklets_meet_on_frames_that_were_not_kept(tmp_path):
    work, config = Work(tmp_path), Config(max_tracklet_images=3)
    work.folder.mkdir()
    levels = [10] * 8
    levels[0] = None  # an image that cannot be read: the first of a is seen all the same
    per_video.embed(Two(levels), Level(), work, "v", config)
    frames = per_video.read_table(work.file("v", "arrow"))["frame"].to_pylist()
    assert frames == [4, 7, 1, 4, 7]  # of 0, 4, 7 and of 1, 4, 7: even steps
    i, j = per_video.cooccurring(work, "v", np.array([0, 0, 1, 1, 1]), True, config.cooccurrence)
    assert sorted(zip(i.tolist(), j.tolist(), strict=True)) == [(0, 2), (0, 3), (1, 4)]
    rarely = replace(config.cooccurrence, min_frames=9)  # what is kept is not taken for what was asked now
    assert len(per_video.cooccurring(work, "v", np.array([0, 0, 1, 1, 1]), True, rarely)[0]) == 0
    work.file("v", "boxes").unlink()
    assert len(per_video.cooccurring(work, "v", np.array([0, 0, 1, 1, 1]), True, rarely)[0]) == 0
    assert len(per_video.cooccurring(work, "v", np.zeros(5, int), False, config.cooccurrence)[0]) == 0
