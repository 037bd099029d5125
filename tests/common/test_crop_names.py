"""Names of crops, one example per benchmark."""

import pytest

from cion_jax.common.crop_names import parse, tracklets


@pytest.mark.parametrize(
    ("name", "person", "video", "tracklet", "frame", "timed"),
    [
        ("0002_c1s1_000451_03.jpg", 2, "c1s1", -1, 451, True),
        ("1488_c1s6_023021_00.jpg.jpg", 1488, "c1s6", -1, 23021, True),
        ("-1_c4s1_000003_01.jpg", -1, "c4s1", -1, 3, True),
        ("0005_c2_f0046985.jpg", 5, "c2", -1, 46985, True),
        ("0001_c1_01.png", 1, "c1", -1, 1, False),
        ("0001_c001_00016450_0.jpg", 1, "c1", -1, 16450, True),
        ("0001C1T0002F003.jpg", 1, "c1", 2, 3, False),
        ("00-1C1T0002F003.jpg", -1, "c1", 2, 3, False),
        ("0001_C6_F0001_X169494.jpg", 1, "c6", -1, 169494, True),
        ("0000_000_01_0303morning_0008_0.jpg", 0, "c1s0303morning", -1, 8, False),
        ("0001_c03_anything.jpg", 1, "c3", -1, -1, False),
    ],
)
def test_names(name, person, video, tracklet, frame, timed):
    found = parse(name)
    assert (found.person, found.video, found.tracklet, found.frame, found.timed) == (
        person,
        video,
        tracklet,
        frame,
        timed,
    )


def test_only_msmt17_counts_people_from_zero():
    assert parse("0000_000_01_0303morning_0008_0.jpg").known
    assert not parse("0000_c1s1_000451_03.jpg").known
    assert not parse("0000C1T0001F001.jpg").known


@pytest.mark.parametrize("name", ["holiday.jpg", "0002_c1s1_000100_01 (copy).jpg", "0001.jpg", "c1_0001.jpg", ""])
def test_other_names_say_nothing(name):
    assert parse(name) is None


def test_tracklets_by_hand():
    names = (
        "0002_c1s1_000451_03",
        "0002_c1s1_000801_03",  # 350 frames later
        "0002_c1s1_000476_03",
        "0003_c1s1_000476_04",  # somebody else
        "0002_c1s2_000476_03",  # another sequence
        "0002_c2s1_000476_03",  # another camera
        "0000_c1s1_000451_01",  # nobody knows who, twice
        "0000_c1s1_000452_01",
    )
    found = tracklets([parse(name + ".jpg") for name in names]).tolist()
    assert found[0] == found[2]
    assert len(set(found)) == len(names) - 1
    mars = [parse(name) for name in ("0001C1T0001F001.jpg", "0001C1T0002F002.jpg", "0001C1T0001F900.jpg")]
    assert len(set(tracklets(mars).tolist())) == 2  # the name says it, whatever the frames
