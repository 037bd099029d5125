"""Re-association, by hand: three tracks, halves and ends, and what an interval is of."""

import numpy as np
import pytest

from benchmarks import reassociation
from cion_jax.common.errors import UserError

TRACK = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2])
# Directions in the plane, in degrees: the third track turns away from itself, towards the first.
ANGLES = np.radians([0, 10, 20, 90, 100, 200, 200, 35, 35])
FEATURES = np.stack([np.cos(ANGLES), np.sin(ANGLES)], 1) * np.arange(1, 10)[:, None]


def degrees(rows):
    return np.degrees(np.arctan2(rows[:, 1], rows[:, 0])) % 360


def test_halves_are_of_a_track_in_its_order():
    """Of three images the first is the first half; lengths of features do not count."""
    np.testing.assert_allclose(degrees(reassociation.means(FEATURES, TRACK)), [0, 15, 90, 100, 200, 35], atol=1e-9)
    np.testing.assert_allclose(degrees(reassociation.ends(FEATURES, TRACK)), [0, 20, 90, 100, 200, 35], atol=1e-9)


def test_ranks():
    """The third track's halves are nearer to every other half than to each other but for one."""
    halves = reassociation.means(FEATURES, TRACK)
    # From 200 to 35 it is 165; 100, 90 and 0 (160) are nearer, 15 (175) is not. From 35: 15, 0, 90 and 100 are nearer.
    np.testing.assert_array_equal(reassociation.ranks(halves), [1, 1, 1, 1, 4, 5])


def test_what_is_told():
    rank_1, reciprocal = reassociation.told(np.array([1, 1, 1, 1, 4, 5]))
    assert rank_1.startswith("66.7% (")
    assert reciprocal.startswith(f"{(4 + 1 / 4 + 1 / 5) / 6:.1%} (")
    assert reassociation.told(np.ones(6, int)) == ("100.0% (100% to 100%)",) * 2


def test_an_even_share_of_every_track(tmp_path):
    class Source:
        def videos(self):
            return ["v"]

        def read(self, video):
            from types import SimpleNamespace

            return [SimpleNamespace(tracklet=t, frame=f) for t, n in (("a", 9), ("b", 1)) for f in range(n)], []

        def crops(self, rows):
            return [(row, np.full((2, 1, 3), row.frame, np.uint8)) for row in reversed(rows)]

    tracks = reassociation.read(Source(), 3)
    assert [int(crop[0, 0, 0]) for crop in tracks.crops] == [0, 4, 8]
    assert (tracks.video, tracks.track.tolist()) == (["v"] * 3, [0] * 3)


@pytest.mark.parametrize("place", ["gt.txt", "gt/gt.txt"])
def test_tracks_are_cut_in_the_middle_of_their_time(tmp_path, place):
    folder = tmp_path / "videos" / "v"
    (folder / place).parent.mkdir(parents=True)
    (folder / "v.mp4").write_text("film")
    (folder / place).write_text("1,1,8,8,4,8,1\n2,1,9,8,4,8,1\n2,3,1,1,4,8,1\n5,1,9,9,4,8,1\n")
    reassociation.cut(tmp_path / "videos", tmp_path / "cut")
    assert (tmp_path / "cut" / "v" / "v.mp4").read_text() == "film"
    text = (tmp_path / "cut" / "v" / place).read_text()
    assert text == "1,2,8,8,4,8,1\n2,3,9,8,4,8,1\n2,7,1,1,4,8,1\n5,3,9,9,4,8,1\n"


def test_videos_without_true_tracks_are_not_cut(tmp_path):
    (tmp_path / "videos" / "v").mkdir(parents=True)
    (tmp_path / "videos" / "v" / "tracks.txt").write_text("1,1,8,8,4,8,1\n")
    with pytest.raises(UserError, match="expected true tracks"):
        reassociation.cut(tmp_path / "videos", tmp_path / "cut")


@pytest.mark.parametrize("turn", [0.0, 1.0])
def test_turning_all_features_changes_nothing(turn):
    around = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    found = reassociation.ranks(reassociation.means(FEATURES @ around, TRACK))
    np.testing.assert_array_equal(found, [1, 1, 1, 1, 4, 5])
