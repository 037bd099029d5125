"""One video through the first stage, from a source that does what the contract allows."""

import json
from pathlib import Path

import numpy as np

from data_prep.config import Config
from data_prep.pipeline import per_video
from data_prep.pipeline.workdir import Work
from data_prep.types import Image, Reject


class Backwards:
    """A source in memory: yields crops last first, gives some keys twice and loses a crop."""

    identified, rejected, root, container = False, [], Path(), None

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
