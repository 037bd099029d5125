"""A car must not pass for a person: class columns are found, and what they mean is known or asked."""

import pytest

from data_prep.types import SourceError
from tests.data_prep.clips import frames_of, line, pictures, seen, text, video


def tracks_of(folder, tails, name="tracks.txt", extra=None, **settings):
    """Tracks that are read of one per tail."""
    pictures(folder / "a" / "img1")
    rows = [line(number, track, tail=tail) for track, tail in enumerate(tails, 1) for number in range(1, 7)]
    text(folder / "a" / name, rows)
    for path, words in (extra or {}).items():
        text(folder / "a" / path, words)
    return sorted({track for some in seen(folder, **settings).values() for track, _ in some})


@pytest.mark.parametrize(
    "tails",
    [
        ["1,1,0,0", "1,4,0,0"],  # VisDrone's columns in another place
        ["0.9,0,-1", "0.8,2,-1"],  # COCO from 0
        ["1,1,-1,-1", "1,3,-1,-1"],
        ["2,0.9", "0,0.8"],  # the class before the confidence
        ["0.9,2,-1,-1", "0.9,2,-1,-1"],  # one class, and no default
        ["0.9,car", "0.9,truck"],
    ],
)
def test_classes_without_a_meaning_are_refused(tmp_path, tails):
    with pytest.raises(SourceError, match=r"class.*--config.mot.classes="):
        tracks_of(tmp_path, tails)


@pytest.mark.parametrize(
    ("tails", "kept"),
    [
        (["0.9,person,-1", "0.8,car,-1"], ["1"]),
        (["0.9,Pedestrian", "0.8,people"], ["1", "2"]),
        (["1,-1,-1,-1", "1,-1,-1,-1"], ["1", "2"]),
        (["0.75,-1,-1,-1", "1,-1,-1,-1"], ["1", "2"]),
        (["-1,-1,-1,-1", "-1,-1,-1,-1"], ["1", "2"]),
        (["1,7.5,-2.25,0", "1,6.5,-1.25,0"], ["1", "2"]),  # MOT15's world coordinates
        (["0.9,-,-1", "nan,-,-1"], ["1", "2"]),
        (["0.9,0,-1", "0.8,0,-1"], ["1", "2"]),
    ],
)
def test_what_is_no_class_or_says_what_it_is(tmp_path, tails, kept):
    assert tracks_of(tmp_path, tails) == kept


@pytest.mark.parametrize(
    ("settings", "kept"),
    [
        ({"classes": "1"}, ["1"]),
        ({"classes": "1,4"}, ["1", "2"]),
        ({"classes": "any"}, ["1", "2"]),
        ({"classes": "4"}, ["2"]),
    ],
)
def test_the_user_says_which_are_people(tmp_path, settings, kept):
    assert tracks_of(tmp_path, ["1,1,0,0", "1,4,0,0"], **settings) == kept


def test_a_column_can_be_named(tmp_path):
    assert tracks_of(tmp_path, ["0.5,0.5,0.5,3", "0.5,0.5,0.5,5"], classes="5", class_column=10) == ["2"]
    with pytest.raises(SourceError, match="class_column=8"):
        tracks_of(tmp_path, ["0.5", "0.5"], classes="5")


def test_ground_truth_as_the_benchmark_defines_it(tmp_path):
    assert tracks_of(tmp_path, ["1,1,0.9", "1,7,1", "0,1,1"], "gt/gt.txt") == ["1"]
    with pytest.raises(SourceError, match="MOTChallenge counts from 1"):
        tracks_of(tmp_path, ["1,0,0.9", "1,1,1"], "gt/gt.txt")


def test_a_list_of_classes_beside_the_text_says_what_they_are(tmp_path):
    names = {"gt/labels.txt": ["car", "person"]}
    assert tracks_of(tmp_path, ["1,1,1", "1,2,1"], "gt/gt.txt", names) == ["2"]
    with pytest.raises(SourceError, match="the list beside it names car, bus"):
        tracks_of(tmp_path, ["1,1,1", "1,2,1"], "gt/gt.txt", {"gt/labels.txt": ["car", "bus"]})


def test_ids_that_count_boxes_are_refused(tmp_path):
    video(tmp_path / "a" / "v.avi")
    rows = [line(1 + n // 4, track=n, box=(10 + 30 * (n % 4), 20, 20, 50)) for n in range(24)]
    text(tmp_path / "a" / "tracks.txt", rows)
    with pytest.raises(SourceError, match="ids are no tracks: none of 24 ids has a second box"):
        frames_of(tmp_path)
