"""Where a text starts to count its frames: never a crop of the wrong frame."""

import pytest

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.sources import _numbering
from data_prep.types import SourceError
from tests.data_prep.clips import frames_of, line, pictures, seen, text, video


def lines(frames):
    return [line(number) for number in frames]


@pytest.mark.parametrize(
    ("numbers", "frames", "cut_from"),
    [
        (range(1, 7), range(1, 7), [1, 2, 3, 4, 5, 6]),
        (range(1, 7), [1, 4], [1, 4]),  # it begins at the first picture, and would not end at the last either way
        (range(1, 7), range(6), [1, 2, 3, 4, 5, 6]),  # 0 is in the text and not among the pictures
        (range(6), range(6), [1, 2, 3, 4, 5, 6]),
        (range(6), range(1, 7), [1, 2, 3, 4, 5, 6]),  # 6 is in the text and not among the pictures
        (range(50, 56), range(50, 54), [1, 2, 3, 4]),  # the numbers in the names
        (range(50, 56), range(1, 5), [1, 2, 3, 4]),  # counted
        (range(50, 56), range(5), [1, 2, 3, 4, 5]),
        (range(0, 60, 10), range(0, 60, 10), [1, 2, 3, 4, 5, 6]),  # every tenth frame by its name
        (range(0, 60, 10), range(1, 7), [1, 2, 3, 4, 5, 6]),  # or counted
        ([1, 2, 4, 5, 6], range(1, 7), [1, 2, 3, 4, 5]),  # a lost picture shifts nothing (3 is the picture of 4)
    ],
)
def test_pictures(tmp_path, numbers, frames, cut_from):
    pictures(tmp_path / "a" / "img1", numbers)
    text(tmp_path / "a" / "tracks.txt", lines(frames))
    assert frames_of(tmp_path) == cut_from


@pytest.mark.parametrize(
    ("frames", "cut_from"), [(range(6), range(1, 7)), (range(1, 7), range(1, 7)), ([1, 4], [1, 4])]
)
def test_videos(tmp_path, frames, cut_from):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", lines(frames))
    assert frames_of(tmp_path) == list(cut_from)


@pytest.mark.parametrize("frames", [range(1, 6), [2, 5]])
def test_what_fits_both_ways_is_refused_and_said_how_to_choose(tmp_path, frames):
    pictures(tmp_path / "a" / "img1", range(6))
    text(tmp_path / "a" / "tracks.txt", lines(frames))
    message = r"from 0 \(--config.mot.first_frame=0\) or from 1 \(--config.mot.first_frame=1\): the text has frames"
    with pytest.raises(SourceError, match=message):
        frames_of(tmp_path)
    assert frames_of(tmp_path, first_frame=0) == [number + 1 for number in frames]
    assert frames_of(tmp_path, first_frame=1) == list(frames)


# The table of docs/guides/formats.md, row by row: names of the pictures (None: a video of six frames), frames of the
# text, and the picture (its place, from 1) that the first row is cut from, or the readings that are refused.
TABLE = [
    (range(1, 7), [0, 3], 1),
    (None, [0, 3], 1),
    (range(1, 7), [3, 6], 3),
    (None, [3, 6], 3),
    (range(1, 7), [1, 4], 1),
    (None, [1, 4], 1),
    (range(1, 7), [1, 5], "0 or 1"),
    (None, [1, 5], "0 or 1"),
    (range(1, 7), [2, 4], "0 or 1"),
    (None, [2, 4], "0 or 1"),
    (range(1, 7), [2, 5], "0 or 1"),
    (None, [2, 5], "0 or 1"),
    (range(6), [0, 3], 1),
    (range(6), [3, 6], 3),
    (range(6), [1, 4], "0 or 1"),
    (range(6), [2, 5], "0 or 1"),
    (range(50, 56), [50, 53], 1),
    (range(50, 56), [52, 53], 3),
    (range(50, 56), [1, 4], 1),
    (range(50, 56), [0, 4], 1),
    (range(50, 56), [2, 6], 2),
    (range(50, 56), [1, 5], "0 or 1"),
    (range(50, 56), [2, 4], "0 or 1"),
    (range(3, 9), [3, 4], 1),
    (range(3, 9), [3, 6], "1 or 3"),
    (range(3, 9), [3, 5], "0 or 1 or 3"),
    (range(3, 9), [4, 5], "0 or 1 or 3"),
    (range(1, 7), range(7), "0 or 1"),
    (None, range(7), "0 or 1"),
    (range(1, 7), range(1, 8), 1),
    (None, range(1, 8), 1),
    ([1, 2, 4, 5, 6], range(1, 7), 1),
    ([1, 2, 4, 5, 6], range(1, 6), "0 or 1"),
    ([1, 2, 4, 5, 6], [1, 2, 3], "1 or 1, counted"),
    (range(0, 60, 10), [0, 20], 1),
    (range(0, 60, 10), [1, 6], 1),
    (range(0, 60, 10), [0, 5], 1),
    (range(0, 60, 10), [2, 4], "0, counted or 1, counted"),
    (range(1, 11, 2), [1, 3], "0, counted or 1 or 1, counted"),
]


@pytest.mark.parametrize(("names", "frames", "found"), TABLE)
def test_the_table(names, frames, found):
    pictures = _numbering.Frames(names or range(1, 7), named=names is not None)
    numbering, _, _, readings = _numbering.find(dict.fromkeys(frames, 1), pictures)
    if isinstance(found, int):
        assert list(pictures.numbers).index(numbering.picture(frames[0], pictures.numbers)) + 1 == found
        return
    assert numbering is None
    assert " or ".join(f"{each.first}{', counted' * each.by_position}" for each in sorted(readings)) == found


def test_texts_of_one_tracker_decide_together(tmp_path):
    # Of b alone nothing could be said; a has frame 0, so both count from 0.
    for name, frames in (("a", range(6)), ("b", [2, 4])):
        video(tmp_path / name / "v.avi")
        text(tmp_path / name / "tracks.txt", lines(frames))
    assert seen(tmp_path) == {"a": [("1", n) for n in range(1, 7)], "b": [("1", 3), ("1", 5)]}


def test_a_lost_picture_shifts_nothing():
    # Of pictures 1 to 100 the third is lost; the texts have rows there, and at the last.
    frames = _numbering.Frames([n for n in range(1, 101) if n != 3], named=True)
    found = _numbering.find(dict.fromkeys(range(1, 101), 1), frames)
    assert found.numbering == _numbering.Numbering(1)
    assert found.numbering.picture(4, frames.numbers) == 4
    assert _numbering.find(dict.fromkeys(range(100), 1), frames).numbering == _numbering.Numbering(0)


def test_a_text_that_may_count_the_pictures_that_are_there_is_refused(tmp_path):
    pictures(tmp_path / "a" / "img1", [1, 2, 4, 5, 6])
    text(tmp_path / "a" / "tracks.txt", lines([1, 2, 3]))
    with pytest.raises(SourceError, match=r"from 1 \(--config.mot.first_frame=1\) or counting only the pictures"):
        frames_of(tmp_path)
    assert frames_of(tmp_path, first_frame=1) == [1, 2]


def test_a_text_of_another_video_is_refused(tmp_path):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", lines(range(1, 13)))
    finding = sources.open("mot", tmp_path, settings=MotConfig()).examine("a")
    assert "6 of 12 rows" in finding.problems[0]
    assert "another frame rate" in finding.problems[0]


def read_of(first, last, others=_numbering.ALL):
    return _numbering.find(
        dict.fromkeys(range(first, last + 1), 1), _numbering.Frames(range(1, 101), named=False), others
    )


def test_one_text_that_has_frame_0_or_the_last_frame_decides_for_all():
    together = _numbering.together([read_of(5, 99), read_of(5, 100)])
    assert 0 not in together
    assert read_of(5, 99, together).numbering == _numbering.Numbering(1)
    together = _numbering.together([read_of(5, 99), read_of(0, 50)])
    assert 1 not in together
    assert read_of(5, 50, together).numbering == _numbering.Numbering(0)


def test_texts_that_end_one_frame_early_stay_in_doubt_however_many_do_not():
    # A quiet video of a tracker that counts from 0 gives the very same texts as one that counts from 1.
    together = _numbering.together([read_of(5, last) for last in (99, 97, 95, 90)])
    assert {each.first for each in read_of(5, 99, together).readings} == {0, 1}


def test_texts_that_contradict_one_another_decide_nothing():
    # One has a box on frame 100 of 100, another on frame 0: two tools wrote them.
    together = _numbering.together([read_of(5, 100), read_of(0, 50), read_of(5, 99), read_of(5, 90)])
    assert not together & {0, 1}
    assert read_of(5, 99, together).numbering is None
    assert read_of(5, 90, together).numbering is None


def test_names_of_pictures_decide_for_the_other_folders_of_a_tracker():
    # Of the second alone it is open whether 3 and 6 are names or places; the first has numbers that are names alone.
    known = _numbering.find({50: 1, 55: 1}, _numbering.Frames(range(50, 56), named=True))
    pictures = _numbering.Frames(range(3, 9), named=True)
    assert _numbering.find({3: 1, 6: 1}, pictures).numbering is None
    found = _numbering.find({3: 1, 6: 1}, pictures, _numbering.together([known]))
    assert found.numbering.picture(3, pictures.numbers) == 3


def test_what_was_taken_though_another_reading_fits_is_said(tmp_path):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", lines([1, 2, 3, 4]))
    taken = r"taken to be counted from 1 (--config.mot.first_frame=1), as the text begins at the first picture"
    (note,) = (n for n in sources.open("mot", tmp_path, settings=MotConfig()).examine("a").notes if taken in n)
    assert note.endswith("as fits, too: from 0 (--config.mot.first_frame=0)")
    said = sources.open("mot", tmp_path, settings=MotConfig(first_frame=1)).examine("a").notes
    assert not any("taken to be" in note for note in said)


def test_where_the_other_texts_decide_nothing_was_taken(tmp_path):
    for name, frames in (("a", range(1, 5)), ("b", range(1, 7))):
        video(tmp_path / name / "v.avi")
        text(tmp_path / name / "tracks.txt", lines(frames))
    assert sources.open("mot", tmp_path, settings=MotConfig()).examine("a").notes == ()
