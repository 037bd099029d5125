"""The synthetic street: repeatable, its truth true, its tracker as bad as asked for."""

import dataclasses
import hashlib
import subprocess
import sys
from collections import Counter, defaultdict

import cv2
import numpy as np
import pytest

from cion_jax.common.typed_config import ConfigError
from data_prep import sources
from data_prep.sources import mottext
from data_prep.sources.market1501 import Market1501
from data_prep.synthetic import street
from data_prep.synthetic.figures import View, colors, draw
from data_prep.synthetic.people import Paint
from data_prep.synthetic.tracker import APART, Mistakes, overlap, track
from data_prep.synthetic.walk import Sighting
from data_prep.types import Reject

PERFECT = Mistakes(switches=0, fragments=0, ghosts=0, drifts=0, misses=0, jitter=0)
SMALL = street.StreetConfig(
    people=6,
    videos=3,
    cameras=2,
    people_per_video=4,
    seconds=12,
    fps=3,
    width=320,
    height=180,
    benchmark_people=4,
    seed=5,
)

TINY = ["--people=2", "--videos=1", "--people_per_video=2", "--seconds=2", "--fps=2", "--benchmark_people=0"]
TINY += ["--width=160", "--height=90", "--processes=1"]


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    folder = tmp_path_factory.mktemp("street") / "small"
    street.generate(folder, SMALL, processes=1)
    return folder


def digests(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def frames(path):
    capture, read = cv2.VideoCapture(str(path)), []
    while (frame := capture.read())[0]:
        read.append(frame[1])
    return read


def crossing(pairs, length=40):
    """Pairs of people who walk towards each other, meet in the middle and walk on; each pair in its own row."""
    sightings = []
    for frame in range(1, length + 1):
        for pair in range(pairs):
            for i, x in enumerate((10.0 * frame, 10.0 * (length - frame))):
                sightings.append(Sighting(frame, 2 * pair + i + 1, (x, 100.0 * pair, 40.0, 90.0), 1.0))
    return sightings


def tracked(sightings, seed=0, **rates):
    mistakes = dataclasses.replace(PERFECT, **rates)
    return track(sightings, mistakes, (500, 4000), np.random.default_rng(seed))


def groups(lines, key):
    found = defaultdict(set)
    for line in lines:
        found[key(line)].add((line.box.frame, line.box.box))
    return sorted(map(sorted, found.values()))


def test_same_seed_same_bytes_whatever_the_number_of_processes(small, tmp_path):
    street.generate(tmp_path / "again", SMALL, processes=2)
    assert digests(tmp_path / "again") == digests(small)
    street.generate(tmp_path / "other", dataclasses.replace(SMALL, seed=6, videos=1, benchmark_people=0), processes=1)
    name = "videos/c1s1/tracks.txt"
    assert digests(tmp_path / "other")[name] != digests(small)[name]


def test_videos_decode_whole_and_show_something(small):
    for name in ("c1s1", "c2s1", "c1s2"):
        read = frames(small / "videos" / name / f"{name}.mp4")
        assert len(read) == 36
        assert all(frame.shape == (180, 320, 3) for frame in read)
        assert min(frame.std() for frame in read) > 15
        assert np.abs(read[0].astype(int) - read[-1]).mean() > 1
    # Two sequences of a camera show the same place in another light, two cameras different places.
    places = {n: frames(small / "videos" / n / f"{n}.mp4")[0].mean(2).ravel() for n in ("c1s1", "c1s2", "c2s1")}
    assert np.corrcoef(places["c1s1"], places["c1s2"])[0, 1] > 0.8 > np.corrcoef(places["c1s1"], places["c2s1"])[0, 1]


def test_people_are_where_the_text_says(small):
    read = np.array(frames(small / "videos" / "c1s1" / "c1s1.mp4")).astype(np.float32).mean(-1)
    change = np.abs(read - np.median(read, axis=0))
    inside = np.zeros(change.shape, bool)
    for box in mottext.read(small / "videos" / "c1s1" / "truth.txt")[0]:
        left, top, width, height = (max(round(value), 0) for value in box.box)
        if box.track > 0:
            inside[box.frame - 1, top : top + height, left : left + width] = True
    assert change[inside].mean() > 4 * change[~inside].mean()


def test_things_stand_on_the_ground_at_their_depth():
    camera, _ = street.make_view(SMALL, 0, 0)
    assert len(camera.things) >= 3
    for thing in camera.things:
        assert abs(thing.top + len(thing.rgba) - camera.ground(0, thing.depth)[1]) <= 1
    assert [thing.depth for thing in camera.things] == sorted((t.depth for t in camera.things), reverse=True)


def test_the_mot_source_reads_it_back_with_truth(small):
    source = sources.open("mot", small / "videos")
    assert source.videos() == ["c1s1", "c1s2", "c2s1"]
    seen = Counter()
    for video in source.videos():
        images, rejects = source.read(video)
        assert not rejects
        assert all(image.truth in {-1, *range(1, 7)} for image in images)
        seen.update({image.truth for image in images} - {-1})
        crops = [crop for _, crop in source.crops(images)]
        assert sum(isinstance(crop, Reject) for crop in crops) < 0.03 * len(crops)
        assert np.median([crop.shape[0] for crop in crops if not isinstance(crop, Reject)]) > 30
    assert set(seen) == set(range(1, 7))
    assert set(seen.values()) == {2}  # 3 videos of 4 people: each of 6 people in two of them


def test_benchmark_people_are_others_and_cross_cameras(small):
    folders = [small / "benchmark" / name for name in ("query", "bounding_box_test")]
    names = {folder.name: sorted(path.name for path in folder.iterdir()) for folder in folders}
    people = {folder: {int(name.split("_")[0]) for name in some} for folder, some in names.items()}
    assert people["query"] <= {7, 8, 9, 10}
    assert people["bounding_box_test"] - {0, -1} <= {7, 8, 9, 10}
    assert not set(names["query"]) & set(names["bounding_box_test"])
    cameras = defaultdict(set)
    for name in names["bounding_box_test"]:
        cameras[int(name.split("_")[0])].add(name.split("_")[1][1])
    assert any(len(cameras[person]) == 2 for person in people["query"])
    source = Market1501(folders[0])
    images = [image for video in source.videos() for image in source.read(video)[0]]
    assert len(images) == len(names["query"])
    assert all(isinstance(crop, np.ndarray) for _, crop in source.crops(images))


def test_a_perfect_tracker_tells_the_truth():
    lines = tracked(crossing(5))
    assert len(lines) == 5 * 2 * 40
    assert groups(lines, lambda line: line.box.track) == groups(lines, lambda line: line.person)
    assert {line.box.track for line in lines} == set(range(1, 11))


def test_switches_happen_when_people_meet_and_as_often_as_asked():
    for rate in (0.0, 0.5, 1.0):
        people = defaultdict(set)
        for seed in range(10):
            for line in (lines := tracked(crossing(10), seed, switches=rate)):
                people[seed, line.box.track].add(line.person)
        mixed = sum(len(some) == 2 for some in people.values())
        assert len(people) == 200
        assert abs(mixed / 200 - rate) < 0.1
    swapped = [line.person for line in lines if line.box.track == 1]
    assert swapped[:18] == [swapped[0]] * 18
    assert swapped[-14:] == [swapped[-1]] * 14 != [swapped[0]] * 14


def test_fragments_add_as_many_tracks_as_asked():
    for rate in (0.5, 2.0):
        tracks = defaultdict(set)
        for seed in range(10):
            for line in tracked(crossing(10), seed, fragments=rate):
                tracks[seed, line.box.track].add(line.person)
        assert all(len(people) == 1 for people in tracks.values())
        assert abs((len(tracks) - 200) / 200 - rate) < 0.2


def test_misses_and_drifts_and_ghosts_come_as_often_as_asked():
    sightings = crossing(30)
    assert abs(len(tracked(sightings, misses=0.25)) / len(sightings) - 0.75) < 0.03
    for rates, low, high in (({"drifts": 0.05}, 0.05, 0.11), ({"ghosts": 0.5}, 0.04, 0.12)):
        lines = tracked(sightings, **rates)
        nobody = [line for line in lines if line.person == -1]
        assert low < len(nobody) / len(sightings) < high
        at = defaultdict(list)
        for sighting in sightings:
            at[sighting.frame].append(sighting.box)
        assert all(overlap(line.box.box, box) <= APART for line in nobody for box in at[line.box.frame])
    ghosts = {line.box.track for line in nobody}
    assert 15 <= len(ghosts) <= 45
    assert not ghosts & {line.box.track for line in lines if line.person != -1}


def test_jitter_moves_the_edges_by_that_share_of_the_size():
    still, moved = tracked(crossing(40)), tracked(crossing(40), jitter=0.05)
    left = [(m.box.box[0] - s.box.box[0]) / s.box.box[2] for s, m in zip(still, moved, strict=True)]
    assert abs(np.std(left) - 0.05) < 0.003
    assert abs(np.mean(left)) < 0.003


def test_hidden_people_are_not_tracked():
    hidden = [s._replace(visible=0.3) if s.person == 1 else s for s in crossing(1)]
    assert {line.person for line in tracked(hidden)} == {2}


def test_overlap_by_hand():
    assert overlap((0, 0, 10, 10), (5, 0, 10, 20)) == 50 / 250
    assert overlap((0, 0, 10, 10), (10, 0, 10, 10)) == 0


def test_truth_text_has_the_lines_of_the_tracks(small):
    for folder in (small / "videos").iterdir():
        (said, bad), (true, worse) = (mottext.read(folder / name) for name in ("tracks.txt", "truth.txt"))
        assert not bad + worse
        assert [(b.frame, b.box) for b in said] == [(b.frame, b.box) for b in true]


def test_everybody_is_dealt_equally_often():
    casts = street.deal(range(1, 51), 7, 20, np.random.default_rng(0))
    assert all(len(set(cast)) == 20 for cast in casts)
    times = Counter(person for cast in casts for person in cast)
    assert set(times) == set(range(1, 51))
    assert set(times.values()) <= {2, 3}
    assert street.deal(range(1, 4), 2, 20, np.random.default_rng(0))[0] != []


def test_a_logo_shows_from_the_front_only():
    person = street.make_person(SMALL, 1)
    loud = Paint("logo", (0.0, 0.0, 1.0), (1.0, 0.0, 0.0))
    person = dataclasses.replace(person, upper=loud, bag="none", height=1.8)
    red = []
    for heading in (0.0, np.pi):
        figure = draw(person, 0.0, View(heading, 0.1, (0.0, 0.0, 1.0)))
        red.append(int(((figure.rgb[..., 0] > 0.5) & (figure.rgb[..., 2] < 0.1)).sum()))
        rows = np.flatnonzero(figure.alpha.any(1))
        assert abs((rows[-1] - rows[0]) / (1.8 * 72) - 1.0) < 0.08
    assert red[0] > 50
    assert red[1] == 0
    ring = colors(Paint("rings", (0, 0, 0), (1, 1, 1)), np.array([0.1, 0.2]), np.zeros(2))
    np.testing.assert_array_equal(ring, [[0, 0, 0], [1, 1, 1]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"people": 0}, r"people must be in \[1, 1000000\], got 0"),
        ({"cameras": 1}, r"cameras must be in \[2, 10000\], got 1"),
        ({"switches": 1.5}, r"switches must be in \[0, 1\], got 1.5"),
        ({"jitter": -1.0}, r"jitter must be in \[0, 10\], got -1.0"),
        ({"width": 321}, "321 x 180 cannot be encoded"),
        ({"seconds": 0.0}, r"seconds must be in \(0, 1000000\], got 0.0"),
        ({"seconds": float("nan")}, r"seconds must be in .* got nan"),
        ({"seconds": 1e6, "fps": 30.0}, "are no video of 1 to 1,000,000 frames"),
        ({"seconds": 0.001}, "are no video"),
    ],
)
def test_impossible_settings(change, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        street.generate(tmp_path / "out", dataclasses.replace(SMALL, **change))
    assert not (tmp_path / "out").exists()


def command(*flags):
    call = [sys.executable, "-m", "data_prep.synthetic.street", *flags]
    return subprocess.run(call, capture_output=True, text=True, timeout=120)


def test_command_line_refuses_to_overwrite(tmp_path):
    (tmp_path / "precious").touch()
    done = command(f"--output={tmp_path}", *TINY)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "is not an empty folder" in done.stderr
    unknown = command(f"--output={tmp_path}", "--peple=3")
    assert "Unknown command line flag 'peple'. Did you mean: people" in unknown.stderr


def test_command_line_writes_what_it_says(tmp_path):
    done = command(f"--output={tmp_path / 'out'}", *TINY)
    assert (done.returncode, done.stdout) == (0, f"wrote {tmp_path}/out/videos\n")
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["street.json", "videos"]
    assert sorted(p.name for p in (tmp_path / "out" / "videos" / "c1s1").iterdir()) == [
        "c1s1.mp4", "seqinfo.ini", "tracks.txt", "truth.txt",
    ]  # fmt: skip
