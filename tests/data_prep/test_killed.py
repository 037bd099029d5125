"""Runs that end without warning, and what the same command makes of what they left."""

import multiprocessing
import os
import resource
import shutil
import sys
import time

import cv2
import numpy as np
import pytest

from data_prep.config import Config
from data_prep.pipeline import beam, run
from data_prep.pipeline.workdir import OutputError, Work
from tests.data_prep.painted import content

# Starts processes that have imported everything already.
START = multiprocessing.get_context("forkserver")
START.set_forkserver_preload(["data_prep.pipeline.run", "data_prep.embedders.color"])
VIDEOS = 8


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A folder of noisy crops, what an undisturbed run makes of it, and how many seconds that takes."""
    root, rng = tmp_path_factory.mktemp("street") / "in", np.random.default_rng(0)
    for video in range(VIDEOS):
        for tracklet in range(3):
            folder = root / f"video {video:02d}" / f"{tracklet}"
            folder.mkdir(parents=True)
            for i in range(5):
                crop = rng.integers(0, 256, (24, 12, 3)) // 4 + rng.integers(0, 190, 3)
                cv2.imwrite(str(folder / f"{i}.jpg"), crop.astype(np.uint8))
    started(root, root.parent / "warm").join()
    start = time.monotonic()
    started(root, root.parent / "out").join()
    return root, content(root.parent / "out"), time.monotonic() - start


def started(root, output, limit=None):
    process = START.Process(target=run_limited, args=(root, output, limit))
    process.start()
    return process


def run_limited(root, output, limit):
    if limit:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        run.run(job(root, output))
    except (beam.RunError, OSError) as error:  # what the command says in one line
        output.with_name("said").write_text(str(error))
        sys.exit(2)


def job(root, output):
    return run.Job("tracklets", str(root), "color", output, Config(linkage="published", sigma_cst=0.5, sigma_drm=0.1))


def done(output):
    """When every video was done that is done."""
    return {path.name: path.stat().st_mtime_ns for path in (output / "work").glob("*.arrow")}


def check_killed(street, tmp_path, moments):
    root, expected, seconds = street
    assert len(expected) >= 8
    found = []
    for number, moment in enumerate(moments):
        output = tmp_path / str(number)
        process = started(root, output)
        time.sleep(moment * seconds)
        process.kill()
        process.join()
        before = done(output)
        found.append(len(before))
        again = started(root, output)
        again.join()
        assert again.exitcode == 0
        assert content(output) == expected
        after = done(output)
        assert len(after) == VIDEOS
        assert {name: after[name] for name in before} == before
    return found


def test_killed_twice(street, tmp_path):
    check_killed(street, tmp_path, [0.3, 0.8])


@pytest.mark.slow
def test_killed_at_random_moments(street, tmp_path):
    found = check_killed(street, tmp_path, np.random.default_rng(0).uniform(0, 1, 20))
    assert min(found) < VIDEOS <= max(found)  # some during the first stage, some after it


@pytest.mark.parametrize("limit", [8_000, 40_000])  # features of a video are larger; the shard is larger
def test_on_a_full_disk_the_run_ends_with_one_message_and_can_go_on(street, tmp_path, limit):
    root, expected, _ = street
    full = started(root, tmp_path / "out", limit)
    full.join()
    assert full.exitcode == 2
    assert "File too large" in (tmp_path / "said").read_text()
    assert not (tmp_path / "out" / "metrics.json").exists()
    before = done(tmp_path / "out")
    assert bool(before) == (limit > 10_000)
    run.run(job(root, tmp_path / "out"))
    assert content(tmp_path / "out") == expected
    assert {name: done(tmp_path / "out")[name] for name in before} == before


def finished(street, tmp_path):
    """A copy of the undisturbed run."""
    return shutil.copytree(street[0].parent / "out", tmp_path / "out")


def test_what_a_crash_of_the_machine_cut_short_is_made_again(street, tmp_path):
    root, expected, _ = street
    output = finished(street, tmp_path)
    cut = {"video 01": ("arrow", 0.5), "video 02": ("npy", 0.9), "video 03": ("levels", 0), "video 04": ("arrow", 0)}
    for video, (kind, left) in cut.items():
        path = Work(output).file(video, kind)
        os.truncate(path, int(left * path.stat().st_size))
    for name in ("metrics.json", "dataset_info.json"):
        (output / name).unlink()
    before = done(output)
    run.run(job(root, output))
    assert content(output) == expected
    changed = {name for name, at in done(output).items() if before[name] != at}
    assert changed == {"video 01.arrow", "video 02.arrow", "video 04.arrow"}


def test_a_cut_record_of_the_run(street, tmp_path):
    root, expected, _ = street
    output = finished(street, tmp_path)
    os.truncate(output / "metrics.json", 10)
    run.run(job(root, output))
    assert content(output) == expected
    os.truncate(output / "work" / "run.json", 10)
    with pytest.raises(OutputError, match=r"run\.json is damaged.*delete"):
        run.run(job(root, output))
