"""The mot source: MOTChallenge text, pictures or video, crops."""

import cv2
import numpy as np
import pytest

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.sources import mottext
from data_prep.types import Reject, SourceError

WIDTH, HEIGHT = 64, 48


def frame(number):
    """A frame whose grey level tells its number, with a white lower half."""
    picture = np.full((HEIGHT, WIDTH, 3), 12 * number % 256, np.uint8)
    picture[HEIGHT // 2 :] = 255
    return picture


def sequence(folder, text, frames=5, tracks="gt/gt.txt"):
    (folder / "img1").mkdir(parents=True)
    for number in range(1, frames + 1):
        cv2.imwrite(str(folder / "img1" / f"{number:06d}.png"), frame(number))
    (folder / tracks).parent.mkdir(exist_ok=True)
    (folder / tracks).write_text(text)
    return folder


def video(path, frames=5):
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (WIDTH, HEIGHT))
    for number in range(1, frames + 1):
        writer.write(frame(number))
    writer.release()


def reasons(rejects):
    return [(r.reason, r.where.split("/")[-1]) for r in rejects]


def test_ground_truth_lines_that_do_not_count_are_set_aside(tmp_path):
    text = "1,1,0,0,9,9,1,1,1\n1,2,0,0,9,9,0,1,1\n1,3,0,0,9,9,1,7,1\n2,1,0,0,9,9,1,1,0.5\n"
    sequence(tmp_path / "a", text)
    sequence(tmp_path / "b", "1,1,0,0,9,9,1,7.5,-2,0\n1,2,0,0,9,9,0,7.5,-2,0\n1,3,0,0,9,9\n")
    source = sources.open("mot", tmp_path)
    assert source.videos() == ["a", "b"]
    read = {v: source.read(v) for v in source.videos()}
    assert [i.key for i in read["a"][0]] == ["a/1/000001", "a/1/000002"]
    assert [i.tracklet for i in read["b"][0]] == ["1", "3"]
    ignored = "ignored by the ground truth"
    assert reasons(read["a"][1]) == [(ignored, f"gt.txt:{n}") for n in (2, 3)]
    assert reasons(read["b"][1]) == [(ignored, "gt.txt:2")]
    assert all(i.truth is None for images, _ in read.values() for i in images)


def test_bad_lines_are_rejected_with_file_and_line(tmp_path):
    lines = ["\ufeff1,1,0,0,9,9", "", "1,2,0,0,9", "x,2,0,0,9,9", "1,2,0,0,nan,9", "-1,2,0,0,9,9", "1,2.5,0,0,9,9"]
    lines += ["1,2,0,0,0,9", "1,2,0,0,9,-3", "1,-1,0,0,9,9", "1,1,9,3,8,9", "9,4,0,0,9,9", "2,1.0,0,0,9,9\r"]
    sequence(tmp_path / "a", "\n".join(lines))
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert [(i.frame, i.tracklet) for i in images] == [(1, "1"), (2, "1")]
    assert reasons(rejects) == [
        *[("malformed line", f"gt.txt:{n}") for n in range(3, 8)],
        ("box of zero size", "gt.txt:8"), ("box of zero size", "gt.txt:9"),
        ("box without a track", "gt.txt:10"), ("missing frame", "a"), ("duplicate key", "000001"),
    ]  # fmt: skip
    assert "got '1,2,0,0,9', expected frame,id,left,top,width,height" in rejects[0].detail


def test_crops_are_clipped_to_the_frame_or_rejected(tmp_path):
    boxes = {
        1: (10, 4, 20, 30), 2: (-5, -6, 20, 30), 3: (64, 0, 20, 30), 4: (60, 0, 20, 30), 5: (0, 0, 5, 30),
        6: (54.6, 20.4, 10, 27.6),
    }  # fmt: skip
    text = "".join(f"3,{k},{','.join(map(str, box))},1\n" for k, box in boxes.items())
    source = sources.open("mot", sequence(tmp_path / "a", text), settings=MotConfig(first_frame=1))
    crops = {i.tracklet: crop for i, crop in source.crops(source.read("a")[0])}
    np.testing.assert_array_equal(crops["1"], frame(3)[4:34, 10:30])
    np.testing.assert_array_equal(crops["2"], frame(3)[0:24, 0:15])
    np.testing.assert_array_equal(crops["6"], frame(3)[20:48, 55:64])
    assert {k: c.reason for k, c in crops.items() if isinstance(c, Reject)} == {
        "3": "box outside the frame", "4": "box mostly outside the frame", "5": "box too small",
    }  # fmt: skip
    assert "got 64, 0, 20, 30 (left, top, width, height) in a frame of 64 x 48" in crops["3"].detail


def test_a_video_is_read_where_there_are_no_pictures(tmp_path):
    (tmp_path / "a").mkdir()
    video(tmp_path / "a" / "street.avi")
    (tmp_path / "a" / "gt.txt").write_text("".join(f"{f},{i},0,0,20,20,1\n" for f in (4, 2, 7) for i in (1, 2)))
    source = sources.open("mot", tmp_path, settings=MotConfig(first_frame=1))
    images, rejects = source.read("a")
    crops = [(i.frame, i.tracklet, crop) for i, crop in source.crops(images[::-1])]
    assert not rejects
    assert [c[:2] for c in crops] == [(2, "2"), (2, "1"), (4, "2"), (4, "1"), (7, "2"), (7, "1")]
    for number, _, crop in crops[:4]:
        assert abs(crop.mean() - 12 * number) < 3
    assert all(c.reason == "missing frame" and "ends or breaks after 5" in c.detail for _, _, c in crops[4:])
    assert source.jpeg(images[0]) is None


def test_a_broken_video_gives_the_frames_that_decode(tmp_path):
    (tmp_path / "a").mkdir()
    path = tmp_path / "a" / "v.avi"
    video(path, frames=100)
    (tmp_path / "a" / "gt.txt").write_text("".join(f"{f},1,0,0,20,20\n" for f in range(1, 101)))
    source = sources.open("mot", tmp_path)
    images, _ = source.read("a")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    crops = [crop for _, crop in source.crops(images)]
    good = [crop for crop in crops if isinstance(crop, np.ndarray)]
    assert 10 < len(good) < 90
    assert {c.reason for c in crops[len(good) :]} == {"missing frame"}
    path.write_bytes(b"no video")
    assert {c.reason for _, c in source.crops(images)} == {"unreadable video"}


def test_an_unreadable_picture_costs_only_its_frame(tmp_path):
    folder = sequence(tmp_path / "a", "".join(f"{f},1,0,0,20,20\n" for f in (1, 2, 3)))
    (folder / "img1" / "000002.png").write_bytes(b"broken")
    source = sources.open("mot", folder)
    crops = [crop for _, crop in source.crops(source.read("a")[0])]
    assert [isinstance(crop, Reject) for crop in crops] == [False, True, False]
    assert (crops[1].reason, crops[1].where) == ("unreadable image", "a/1/000002")


def test_a_sequence_that_lacks_something_says_so(tmp_path):
    (tmp_path / "no_video").mkdir()
    (tmp_path / "no_video" / "tracks.txt").write_text("1,1,0,0,9,9")
    (tmp_path / "no_text").mkdir()
    for name in ("one.avi", "two.mp4"):
        (tmp_path / "no_text" / name).touch()
    (tmp_path / "unrelated").mkdir()
    source = sources.open("mot", tmp_path)
    assert source.videos() == ["no_text", "no_video"]
    assert [(r.reason, r.where) for r in source.rejected] == [("no sequence", str(tmp_path / "unrelated"))]
    assert "got none; expected img1/ or exactly one video" in source.read("no_video")[1][0].detail
    assert "got one.avi, two.mp4" in source.read("no_text")[1][0].detail
    (tmp_path / "no_text" / "one.avi").unlink()
    source = sources.open("mot", tmp_path)
    assert source.read("no_text")[1][0].reason == "no track text"


def test_truth_is_matched_by_frame_and_box(tmp_path):
    text = "1,1,0,0,9,9.10\n2,1,0,0,9,9.1\n3,1,0,0,8,9\n4,1,0,0,9,9\n"
    folder = sequence(tmp_path / "a", text, frames=4, tracks="tracks.txt")
    (folder / "truth.txt").write_text("2,31,0,0,9,9.1\n1,30,0,0,9,9.1\n3,-1,0,0,8,9\n4,5,1,0,9,9\nbad\n")
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert [i.truth for i in images] == [30, 31, -1, None]
    assert reasons(rejects) == [("malformed line", "truth.txt:5")]


def test_detections_are_no_tracks(data):
    source = sources.open("mot", data / "videos", tracks="det/det.txt")
    images, rejects = source.read("TUD-Campus")
    assert not images
    assert [reject.reason for reject in rejects] == ["box without a track"] * 322
    assert "a negative id; these are detections, run a tracker first" in rejects[0].detail
    with pytest.raises(SourceError, match="no sequence in"):
        sources.open("mot", data / "weights")


def test_written_text_reads_back(tmp_path):
    boxes = [mottext.Box(1, 3, (0.25, -4.5, 10.0, 20.75)), mottext.Box(2, -1, (1.0, 2.0, 3.0, 4.0))]
    mottext.write(tmp_path / "t.txt", boxes)
    assert mottext.read(tmp_path / "t.txt") == (boxes, [])


@pytest.mark.parametrize(
    ("name", "images", "tracklets", "ignored", "last"),
    [("TUD-Campus", 359, 8, 0, 71), ("pets09_s2l1", 4476, 19, 174, 795)],
)
def test_real_sequences(data, name, images, tracklets, ignored, last):
    """Counts as MOTChallenge states them: https://motchallenge.net/data/MOT15 (ignored lines not counted)."""
    source = sources.open("mot", data / "videos")
    read, rejects = source.read(name)
    assert (len(read), len({i.tracklet for i in read}), len(rejects)) == (images, tracklets, ignored)
    some = [i for i in read if i.frame > last - 20]
    crops = list(source.crops(some))
    assert len(crops) == len(some)
    assert all(crop.std() > 10 and abs(crop.shape[0] - i.box[3]) <= 1 for i, crop in crops if i.box[1] > 0)
