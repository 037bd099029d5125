"""Which tracklets co-occur, by hand."""

import numpy as np

from data_prep.denoise.cooccurrence import cooccurring
from data_prep.denoise.settings import CooccurrenceSettings


def pairs(frame, tracklet, box=None, **settings):
    boxes = np.full((len(frame), 4), np.nan) if box is None else np.array(box, float)
    i, j = cooccurring(np.array(frame), np.array(tracklet), boxes, CooccurrenceSettings(**settings))
    return sorted(zip(i.tolist(), j.tolist(), strict=True))


def test_tracklets_that_co_occur_twice_are_two_people():
    assert pairs([1, 2, 3, 1, 2, 9], [0, 0, 0, 1, 1, 1]) == [(0, 3), (1, 4)]


def test_a_single_frame_may_be_a_stray_image():
    assert pairs([1, 2, 3, 1, 8, 9], [0, 0, 0, 1, 1, 1]) == []
    assert pairs([1, 2, 3, 1, 8, 9], [0, 0, 0, 1, 1, 1], min_frames=1) == [(0, 3)]


def test_unknown_frames_and_one_tracklet_say_nothing():
    assert pairs([-1, -1, -1, -1], [0, 0, 1, 1]) == []
    assert pairs([5, 5, 6, 6], [0, 0, 0, 0]) == []
    assert pairs([], []) == []


def test_three_at_once():
    assert pairs([1, 2, 1, 2, 1, 2], [0, 0, 1, 1, 2, 2]) == [(0, 2), (0, 4), (1, 3), (1, 5), (2, 4), (3, 5)]


def test_boxes_on_one_person_do_not_co_occur():
    # Tracklets 0 and 1 lie on each other (intersection 9 x 10 of 11 x 10), 2 stands 5 and 4 to the right (1/3, 6/14).
    box = [[0, 0, 10, 10]] * 2 + [[1, 0, 10, 10]] * 2 + [[5, 0, 10, 10]] * 2
    assert pairs([1, 2, 1, 2, 1, 2], [0, 0, 1, 1, 2, 2], box) == [(0, 4), (1, 5), (2, 4), (3, 5)]
    assert pairs([1, 2, 1, 2, 1, 2], [0, 0, 1, 1, 2, 2], box, max_iou=0.4) == [(0, 4), (1, 5)]
