"""How many videos distances are sampled from."""

import numpy as np

from data_prep.config import Config
from data_prep.denoise import calibrate
from data_prep.denoise.settings import CalibrationSettings, SearchSettings
from data_prep.pipeline import per_video, thresholds
from data_prep.pipeline.image_table import ImageTable
from data_prep.pipeline.workdir import Work
from data_prep.types import Image


def forty_videos(folder):
    """Of two tracklets of four images each."""
    work, rng = Work(folder), np.random.default_rng(0)
    work.folder.mkdir()
    names = [f"{i:02d}" for i in range(40)]
    for name in names:
        images = [Image(f"{name}/{t}/{i}", name, t, i, "x") for t in "ab" for i in range(4)]
        np.save(work.file(name, "npy"), rng.standard_normal((8, 5)).astype(np.float32))
        per_video.write_table(work.file(name, "arrow"), per_video.references(images, [-1] * 8))
    return ImageTable.load(work, False, Config().cooccurrence, names)


def test_of_many_videos_random_ones_are_sampled_until_there_are_enough(tmp_path, monkeypatch):
    table, read = forty_videos(tmp_path), []
    features = Work.features
    monkeypatch.setattr(Work, "features", lambda self, video: read.append(video) or features(self, video))
    for exact_rows, number in ((80, 40), (79, 20)):  # each video has one pair of tracklets, and more of all else
        read.clear()
        config = Config(search=SearchSettings(exact_rows=exact_rows), calibration=CalibrationSettings(max_distances=10))
        found = thresholds._samples(table, calibrate.RANDOM, config)
        assert len(read) == len(set(read)) == number
        assert (read == list(table.videos)) == (number == 40)
        assert len(found.image) == len(found.centroid) == len(found.centroid_apart) == 10
