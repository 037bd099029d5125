"""Where sequences and their texts lie, as benchmarks, trackers and people leave them."""

import pytest

from data_prep import sources
from data_prep.types import SourceError
from tests.common.test_images import exif
from tests.data_prep.clips import line, pictures, seen, text, video

SIX = [("1", n) for n in range(1, 7)]
LINES = [line(n) for n in range(1, 7)]


def test_results_beside_videos(tmp_path):
    for name in ("a.avi", "b.mp4"):
        text(video(tmp_path / name).with_suffix(".txt"), LINES)
    assert seen(tmp_path) == {"a": SIX, "b": SIX}


@pytest.mark.parametrize("suffix", ["ts", "MTS", "wmv", "dav", "flv", "3gp", "vob"])
def test_names_of_recorders(tmp_path, suffix):
    text(video(tmp_path / "a" / f"v.{suffix}").with_name("tracks.txt"), LINES)
    assert seen(tmp_path) == {"a": SIX}


def test_results_in_a_folder_of_their_own(tmp_path):
    for name in ("MOT20-01", "MOT20-02"):
        pictures(tmp_path / "train" / name / "img1")
        text(tmp_path / "results" / f"{name}.txt", LINES)
    text(tmp_path / "results" / "labels.txt", ["person"])
    assert seen(tmp_path) == {"MOT20-01": SIX, "MOT20-02": SIX}


def test_a_sequence_counts_once_whatever_its_detectors(tmp_path):
    for name in ("MOT17-02-DPM", "MOT17-02-FRCNN", "MOT17-02-SDP", "MOT17-04-SDP"):
        pictures(tmp_path / name / "img1")
        text(tmp_path / name / "gt" / "gt.txt", [line(n, tail="1,1,1") for n in range(1, 7)])
    assert seen(tmp_path) == {"MOT17-02-DPM": SIX, "MOT17-04-SDP": SIX}
    rejects = sources.open("mot", tmp_path).rejected
    assert [reject.reason for reject in rejects] == ["another detector's copy"] * 2
    assert "the same pictures as MOT17-02-DPM" in rejects[0].detail


def test_seqinfo_says_where_pictures_are(tmp_path):
    pictures(tmp_path / "a" / "cam", name="{:06d}.png")
    pictures(tmp_path / "a" / "cam", [3, 9], name="{:06d}.bmp")
    text(tmp_path / "a" / "gt" / "gt.txt", LINES)
    text(tmp_path / "a" / "seqinfo.ini", ["[Sequence]", "imDir=cam", "imExt=.png", "seqLength=7"])
    assert seen(tmp_path) == {"a": SIX}
    assert "seqinfo.ini says 7 frames, there are 6" in sources.open("mot", tmp_path).examine("a").notes


def test_pictures_beside_their_text_and_sequences_of_one_name(tmp_path):
    for city in ("ulm", "bern"):
        text(pictures(tmp_path / city / "cam1") / "gt.txt", LINES)
    assert seen(tmp_path) == {"bern+cam1": SIX, "ulm+cam1": SIX}


def test_links_are_followed_and_loops_are_not(tmp_path):
    text(pictures(tmp_path / "elsewhere" / "a" / "img1").parent / "gt.txt", LINES)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link").symlink_to(tmp_path / "elsewhere" / "a")
    (tmp_path / "elsewhere" / "a" / "up").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "again").symlink_to(tmp_path / "in")
    assert seen(tmp_path / "in") == {"link": SIX}


def test_one_text_for_two_videos_is_set_aside(tmp_path):
    pictures(tmp_path / "x" / "cam" / "a")
    pictures(tmp_path / "y" / "cam" / "a")
    text(tmp_path / "results" / "a.txt", LINES)
    source = sources.open("mot", tmp_path)
    assert {source.read(name)[1][0].reason for name in source.videos()} == {"one text for several videos"}


def test_two_texts_for_one_video_are_set_aside(tmp_path):
    video(tmp_path / "videos" / "a.avi")
    for tracker in ("sort", "byte"):
        text(tmp_path / tracker / "a.txt", LINES)
    (reject,) = sources.open("mot", tmp_path).read("a")[1] if "a" in sources.open("mot", tmp_path).videos() else [None]
    assert reject is not None
    assert "--config.tracks=DIR" in reject.detail
    assert seen(tmp_path, tracks=str(tmp_path / "byte")) == {"a": SIX}


def test_nothing_to_read_names_the_layout(tmp_path):
    (tmp_path / "stuff").mkdir()
    with pytest.raises(SourceError, match=r"no sequence in .*expected folders with img1/ or a video file"):
        sources.open("mot", tmp_path)


def test_seqinfo_that_contradicts_the_pictures_is_refused(tmp_path):
    text(pictures(tmp_path / "a" / "img1").parent / "gt.txt", LINES)
    text(tmp_path / "a" / "seqinfo.ini", ["[Sequence]", "imWidth=320", "imHeight=240", "frameRate=x", "seqLength=1e99"])
    with pytest.raises(SourceError, match=r"seqinfo.ini says pictures of 320 x 240, they are 160 x 120"):
        seen(tmp_path)
    assert seen(tmp_path, box="xywh") == {"a": SIX}


def test_a_frame_rate_that_contradicts_the_video_is_told(tmp_path):
    text(video(tmp_path / "a" / "v.avi").with_name("gt.txt"), LINES)
    text(tmp_path / "a" / "seqinfo.ini", ["[Sequence]", "frameRate=25"])
    assert (
        "seqinfo.ini says 25 frames per second, the video has 10" in sources.open("mot", tmp_path).examine("a").notes[0]
    )


def test_a_text_of_another_name_is_named(tmp_path):
    text(video(tmp_path / "a" / "v.avi").with_name("output.txt"), LINES)
    (reject,) = sources.open("mot", tmp_path).read("a")[1]
    assert "holds output.txt; where one is it, say --config.tracks=output.txt" in reject.detail
    assert seen(tmp_path, tracks="output.txt") == {"a": SIX}


@pytest.mark.parametrize(
    ("film", "track_text"),
    [("a/V.AVI", "a/TRACKS.TXT"), ("Cam1.avi", "cam1.txt"), ("v1.avi", "v1.avi.txt"), ("a/v.avi", "a/GT/Gt.txt")],
)
def test_capitals_and_the_videos_suffix_do_not_matter(tmp_path, film, track_text):
    video(tmp_path / film)
    text(tmp_path / track_text, LINES)
    assert list(seen(tmp_path).values()) == [SIX]


def test_a_text_that_begins_as_the_video_is_no_text_per_frame(tmp_path):
    video(tmp_path / "v1.avi")
    text(tmp_path / "v1_tracks.txt", LINES)
    (reject,) = sources.open("mot", tmp_path).read(tmp_path.name)[1]
    assert "say --config.tracks=v1_tracks.txt" in reject.detail


@pytest.mark.parametrize("name", ["frame{}_of_6.png", "{:06d}_c1.png", "2020-01-01 10.00.{:02d}.png", "{:03d}.5.png"])
def test_the_number_that_tells_pictures_apart_is_theirs(tmp_path, name):
    text(pictures(tmp_path / "a" / "img1", name=name).parent / "gt.txt", LINES)
    assert seen(tmp_path) == {"a": SIX}


def test_copies_in_another_format_and_covers_shift_nothing(tmp_path):
    folder = pictures(tmp_path / "a" / "img1", name="f{:06d}.png")
    pictures(folder, name="f{:06d}.jpg")
    pictures(folder, [1], name="cover.png")
    text(tmp_path / "a" / "gt.txt", LINES)
    assert seen(tmp_path) == {"a": SIX}
    (note,) = sources.open("mot", tmp_path).examine("a").notes
    assert note.startswith("7 of ")


def test_two_series_of_pictures_in_one_folder_are_refused(tmp_path):
    for name in "ab":
        folder = pictures(tmp_path / "s" / "img1", range(1, 4), name=name + "{}.png")
    text(folder.parent / "gt.txt", LINES)
    (problem,) = sources.open("mot", tmp_path).examine("s").problems
    assert "2 kinds, a1.png, b1.png" in problem


def test_pictures_that_are_to_be_turned_are_refused(tmp_path):
    folder = pictures(tmp_path / "a" / "img1", name="{:06d}.jpg")
    for path in folder.iterdir():
        path.write_bytes(exif(path.read_bytes(), 6))
    text(tmp_path / "a" / "gt.txt", LINES)
    (problem,) = sources.open("mot", tmp_path).examine("a").problems
    assert "EXIF says that the pictures are to be turned" in problem
    with pytest.raises(SourceError, match="EXIF"):
        seen(tmp_path)


def test_detections_are_named_where_there_are_no_tracks(tmp_path):
    pictures(tmp_path / "a" / "img1")
    text(tmp_path / "a" / "det" / "det.txt", [line(1, track=-1)])
    _, (reject,) = sources.open("mot", tmp_path).read("a")
    assert reject.detail.endswith("det/det.txt holds detections without tracks: run a tracker first")
