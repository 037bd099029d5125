"""Which tracklets co-occur, by hand."""

import numpy as np

from data_prep.denoise.cooccurrence import cooccurring, nearest_kept
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


def test_one_person_found_twice_is_apart_by_chance_now_and_then():
    # On frames 1 to 3 one box covers the other, on 4 and 5 it lies beside it; on frame 6 it does as well.
    box = [[0, 0, 10, 10]] * 6 + [[0, 0, 10, 10]] * 3 + [[20, 0, 10, 10]] * 3
    five, six = [1, 2, 3, 4, 5, -1] * 2, [1, 2, 3, 4, 5, 6] * 2
    assert pairs(five, [0] * 6 + [1] * 6, box) == []
    assert pairs(six, [0] * 6 + [1] * 6, box) == [(3, 9), (4, 10), (5, 11)]


def test_the_nearest_kept_image_of_the_tracklet_stands_for_a_box():
    # Tracklet 0 is kept on frames 10 and 20, tracklet 1 on frame 4 alone; 15 is as near to both: the earlier.
    frame = np.array([10, 14, 15, 16, 20, 99, 3, 4, 99])
    kept = np.array([7, 0, 4])
    assert nearest_kept(frame, np.array([0] * 6 + [1] * 3), kept).tolist() == [1, 1, 1, 2, 2, 2, 0, 0, 0]
    assert nearest_kept(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int)).tolist() == []


def test_kept_images_meet_where_their_tracklets_did():
    # Tracklet 0 is seen on frames 0 to 9 and kept on 0 and 8, tracklet 1 on 5 to 14 and kept on 6 and 14: together on
    # 5 to 9. For 0 stands the image of frame 8, for 1 that of frame 6: 5 is nearer to 8 than to 0, 9 to 6 than to 14.
    frame, tracklet = np.r_[0:10, 5:15], np.repeat([0, 1], 10)
    image = nearest_kept(frame, tracklet, np.array([0, 8, 11, 19]))
    i, j = cooccurring(frame, tracklet, np.full((20, 4), np.nan), CooccurrenceSettings(), image)
    assert (i.tolist(), j.tolist()) == ([1], [2])


def test_long_tracklets_that_were_thinned_on_grids_of_their_own_still_meet():
    # Together for 5,631 of 6,000 frames. Of the hundred images of either, none is on a frame of the other's.
    frame, tracklet = np.r_[0:6000, 369:6369], np.repeat([0, 1], 6000)
    kept = np.r_[0:6000:60, 6000:12000:60]
    assert not np.intersect1d(frame[kept[:100]], frame[kept[100:]]).size
    image = nearest_kept(frame, tracklet, kept)
    i, j = cooccurring(frame, tracklet, np.full((12000, 4), np.nan), CooccurrenceSettings(), image)
    assert set(i.tolist()) == set(range(6, 100))
    assert set(j.tolist()) == set(range(100, 195))
    assert abs(frame[kept[i]] - frame[kept[j]]).max() <= 30 + 59  # the last is kept 59 frames early
