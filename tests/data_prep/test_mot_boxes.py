"""Sizes, corners or centers: by which boxes leave the frame, or refused."""

import numpy as np
import pytest

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.sources import _geometry
from data_prep.types import SourceError
from tests.data_prep.clips import HEIGHT, WIDTH, line, pictures, seen, text

PEOPLE = [(x + f, y, 20, 50) for x, y in ((10, 5), (60, 30), (120, 65)) for f in range(12)]  # left, top, width, height
FORMS = {
    "xywh": lambda x, y, w, h: (x, y, w, h),
    "xyxy": lambda x, y, w, h: (x, y, x + w, y + h),
    "cxcywh": lambda x, y, w, h: (x + w / 2, y + h / 2, w, h),
}


def read(folder, boxes, **settings):
    pictures(folder / "img1", range(1, 13))
    tracks = [line(i % 12 + 1, i // 12 + 1, box) for i, box in enumerate(boxes)]
    text(folder / "tracks.txt", tracks)
    source = sources.open("mot", folder, settings=MotConfig(**settings))
    return sorted(image.box for image in source.read(folder.name)[0])


@pytest.mark.parametrize("form", FORMS)
def test_the_form_is_found_by_what_leaves_the_frame(tmp_path, form):
    assert read(tmp_path, [FORMS[form](*box) for box in PEOPLE]) == sorted(PEOPLE)


@pytest.mark.parametrize("form", FORMS)
def test_shares_of_the_frame(tmp_path, form):
    scale = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
    boxes = [tuple(np.array(FORMS[form](*box)) / scale) for box in PEOPLE]
    np.testing.assert_allclose(read(tmp_path, boxes, box=f"{form}n"), sorted(PEOPLE), atol=1e-9)


def test_corners_that_stay_in_the_frame_either_way_move_along(tmp_path):
    people = [(x + f, y + f, 12, 30) for x, y in ((15, 31), (30, 33), (50, 32)) for f in range(12)]
    corners = [FORMS["xyxy"](*box) for box in people]
    out = _geometry.leaving(np.array(corners), (HEIGHT, WIDTH))
    assert out == 0
    assert read(tmp_path, corners) == sorted(people)


def test_what_fits_both_ways_is_refused_with_both_readings(tmp_path):
    boxes = [(10, 20, 50, 90)] * 6  # 50 x 90 from there, or 40 x 70
    message = (
        r"left, top, width, height \(--config.mot.box=xywh\) or left, top, right, bottom \(--config.mot.box=xyxy\)"
    )
    with pytest.raises(SourceError, match=message):
        read(tmp_path, boxes)
    assert read(tmp_path, boxes, box="xywh") == [(10, 20, 50, 90)] * 6
    assert read(tmp_path, boxes, box="xyxy") == [(10, 20, 40, 70)] * 6


def test_a_tracker_on_larger_pictures_is_refused(tmp_path):
    with pytest.raises(SourceError, match="beyond the frame in every reading"):
        read(tmp_path, [tuple(8 * v for v in box) for box in PEOPLE])


def test_boxes_that_leave_the_frame_a_little_are_no_evidence(tmp_path):
    boxes = [(x - 8, y + 3, w, h) for x, y, w, h in PEOPLE]  # a tracker goes on where people leave
    assert read(tmp_path, boxes) == sorted(boxes)


def test_one_track_with_frame_and_id_the_other_way_round_is_refused(tmp_path):
    pictures(tmp_path / "a" / "img1")
    text(tmp_path / "a" / "tracks.txt", [line(1, k, (100 + k, 20, 20, 50)) for k in range(1, 7)])
    with pytest.raises(SourceError, match=r"in the first reading no track has a second box, .* goes 0\.0 of its"):
        seen(tmp_path, first_frame=1)


@pytest.mark.parametrize("third", ["0", "0.9"])
def test_what_stands_before_the_box_is_refused(tmp_path, third):
    pictures(tmp_path / "a" / "img1")
    text(tmp_path / "a" / "tracks.txt", [f"{k},1,{third},100,20,20,50" for k in range(1, 7)])
    with pytest.raises(
        SourceError, match=r"third column lies between 0 and 1, and the seventh above 1, in all 6 rows: a conf"
    ):
        seen(tmp_path)
    assert [number for _, number in seen(tmp_path, box="xywh")["a"]] == [1, 2, 3, 4, 5, 6]


def test_frame_and_id_the_other_way_round_are_refused(tmp_path):
    pictures(tmp_path / "img1", range(1, 7))
    text(tmp_path / "tracks.txt", [line(t, n, (20 * t + n, 10, 10, 40)) for n in range(1, 7) for t in range(1, 6)])
    source = sources.open("mot", tmp_path, settings=MotConfig())
    with pytest.raises(SourceError, match=r"--config.mot.order=id,frame\): in the first reading a box goes 0.5"):
        source.read(tmp_path.name)
    for order, tracks in (("frame,id", 6), ("id,frame", 5)):
        images, _ = sources.open("mot", tmp_path, settings=MotConfig(order=order, first_frame=1)).read(tmp_path.name)
        assert len({image.tracklet for image in images}) == tracks
