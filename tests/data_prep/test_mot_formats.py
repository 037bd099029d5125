"""What trackers and tools really write, read as they mean it."""

import pytest

from data_prep import sources
from data_prep.config import MotConfig
from data_prep.sources import _formats, _rows, mottext
from data_prep.types import SourceError
from tests.data_prep.clips import BOX, HEIGHT, WIDTH, frames_of, line, pictures, seen, text, video

X, Y, W, H = BOX
CORNERS = f"{X} {Y} {X + W} {Y + H}"
SIX_FRAMES = [1, 2, 3, 4, 5, 6]
SIX = [("1", n) for n in range(1, 7)]


@pytest.mark.parametrize(
    "row",
    [
        "{f},{t},100,20,20,50,1,-1,-1,-1",
        "{f}, {t}, 100.0, 20.0, 20.0, 50.0, 0.9",
        "{f} {t} 100 20 20 50 -1 -1 -1 -1 ",
        "{f}\t{t}\t100\t20\t20\t50",
        "{f};{t};100,0;20,0;20,0;50,0",
        "{f}|{t}|100|20|20|50|0.5",
        "{f} {t} 100,5 20,25 20,0 50,0",
        "{f}.0,{t}.0,1.0e2,2.0e1,20,50",
        "[{f}, {t}, 100, 20, 20, 50]",
        '"{f}","{t}","100","20","20","50"',
        "{f},{t},100,20,20,50,0.9,person,,",
        "{f},{t},100,20,20,50,",
    ],
)
def test_any_separator_and_any_tail(tmp_path, row):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", ["", *(row.format(f=f, t=t) for f in range(1, 7) for t in (1, 2))])
    assert seen(tmp_path) == {"a": SIX + [("2", n) for n in range(1, 7)]}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_byte_order_marks_and_line_ends(tmp_path, encoding):
    video(tmp_path / "a" / "v.avi")
    (tmp_path / "a" / "tracks.txt").write_bytes("\r\n".join(line(n) for n in range(1, 7)).encode(encoding))
    assert frames_of(tmp_path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("frame,id,x,y,w,h,conf", "{f},1,100,20,20,50,1"),
        ("# frame_id track_id bb_left bb_top bb_width bb_height", "{f} 1 100 20 20 50"),
        ("track_id,frame,xmin,ymin,xmax,ymax", "1,{f},100,20,120,70"),
        (",Frame,ID,X1,Y1,X2,Y2", "7,{f},1,100,20,120,70"),  # a data frame with its index
        ("id;frame;cx;cy;width;height", "1;{f};110;45;20;50"),
        ("class,frame,id,left,top,right,bottom", "person,{f},1,100,20,120,70"),
    ],
)
def test_a_header_names_the_columns(tmp_path, header, row):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", [header, *(row.format(f=f) for f in range(1, 7))])
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert [(i.frame, i.tracklet, i.box) for i in images] == [(n, "1", BOX) for n in range(1, 7)]
    assert not rejects


def test_a_header_that_is_not_understood_is_not_read_past(tmp_path):
    text(tmp_path / "t.txt", ["frame,id,foo,bar,baz,quux", line(1)])
    with pytest.raises(SourceError, match="got a header frame, id, foo"):
        mottext.table(tmp_path / "t.txt")


@pytest.mark.parametrize(
    ("written", "number"),
    [
        ("12", 12), ("12.0", 12), ("1.2e1", 12), ("9007199254740993", 2**53 + 1), ("18446744073709551614", 2**64 - 2),
        ("340282366920938463463374607431768211455", 2**128 - 1), ("-1", -1), ("-7", -1), ("18446744073709551615", -1),
        ("4294967295", -1), ("nan", -1), ("", -1),
    ],
)  # fmt: skip
def test_ids_are_exact(written, number):
    assert _rows.track_id(written) == number


@pytest.mark.parametrize(
    "written", ["1.5", "x", "1_000", "1e999999999", "1.23457e+06", "9007199254740993.0", "1e17", "9" * 5000, "inf"]
)
def test_ids_that_lost_digits_or_are_none_are_not_guessed(written):
    with pytest.raises(ValueError, match=r"expected|lost|loses"):
        _rows.track_id(written)


def test_one_absurd_number_costs_its_row(tmp_path):
    bad = ["1,2,1e300,20,20,50", "1,2,inf,20,20,50", "99999999999,2,100,20,20,50", f"1,{'9' * 60},100,20,20,50", "\0"]
    found = mottext.table(text(tmp_path / "t.txt", [line(1), *bad, line(2)]))
    assert [row.frame for row in found.rows] == [1, 2]
    assert [reject.where.rpartition(":")[2] for reject in found.rejects] == ["2", "3", "4", "5"]


def test_kitti_tracking(tmp_path):
    pictures(tmp_path / "image_02" / "0000", range(6))
    pictures(tmp_path / "image_03" / "0000", range(6))
    rows = [
        f"{n} {t} {kind} 0 0 -1.5 {CORNERS} 1 1 1 1 1 1 0"
        for n in range(6)
        for t, kind in ((1, "Pedestrian"), (2, "Car"))
    ]
    text(tmp_path / "label_02" / "0000.txt", [*rows, f"0 -1 DontCare -1 -1 -10 {CORNERS} -1 -1 -1 -1 -1 -1 -1"])
    assert seen(tmp_path) == {"0000": SIX}


def test_visdrone(tmp_path):
    pictures(tmp_path / "sequences" / "uav1", range(1, 7), "{:07d}.png")
    rows = [line(n, t, tail=f"1,{kind},0,0") for n in range(1, 7) for t, kind in ((1, 1), (2, 4))]
    text(tmp_path / "annotations" / "uav1.txt", [*rows, line(1, 0, tail="0,0,0,0")])
    assert seen(tmp_path) == {"uav1": SIX}


def test_deepstream_with_ids(tmp_path):
    video(tmp_path / "a" / "v.mp4")
    for n in range(6):
        rows = [
            f"{kind} {t} 0.0 0 0.0 {CORNERS} 0.0 0.0 0.0 0.0 0.0 0.0 0.0 0.9" for t, kind in ((1, "person"), (2, "bag"))
        ]
        text(tmp_path / "a" / "kitti" / f"00_000_{n:06d}.txt", rows)
    assert seen(tmp_path) == {"a": SIX}
    text(tmp_path / "a" / "kitti" / "00_001_000000.txt", [])
    with pytest.raises(SourceError, match="streams 00_000, 00_001"):
        _formats.load(tmp_path / "a" / "kitti")


@pytest.mark.parametrize("tail", [" 1", " 0.875 1"])
def test_yolo_labels_with_ids(tmp_path, tail):
    row = f"0 {(X + W / 2) / WIDTH} {(Y + H / 2) / HEIGHT} {W / WIDTH} {H / HEIGHT}{tail}"
    video(tmp_path / "street.mp4")
    for n in range(1, 7):
        text(tmp_path / "labels" / f"street_{n}.txt", [row])
    source = sources.open("mot", tmp_path)
    images, _ = source.read("street")
    assert [(i.frame, i.tracklet) for i in images] == [(n, "1") for n in range(1, 7)]
    assert all(abs(a - b) < 1e-6 for image in images for a, b in zip(image.box, BOX, strict=True))


def test_yolo_labels_without_ids_are_detections(tmp_path):
    pictures(tmp_path / "a" / "img1")
    for n in range(1, 7):
        text(tmp_path / "a" / "labels" / f"{n:06d}.txt", ["0 0.5 0.5 0.1 0.4 0.9"])
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert not images
    assert "expected class cx cy width height" in rejects[0].detail


def test_cvat_video(tmp_path):
    video(tmp_path / "a" / "v.mp4")
    boxes = "".join(
        f'<box frame="{n}" outside="{int(n > 3)}" xtl="{X}" ytl="{Y}" xbr="{X + W}" ybr="{Y + H}"/>' for n in range(6)
    )
    tracks = "".join(f'<track id="{t}" label="{label}">{boxes}</track>' for t, label in ((1, "person"), (2, "car")))
    text(tmp_path / "a" / "annotations.xml", [f"<annotations><version>1.1</version>{tracks}</annotations>"])
    assert seen(tmp_path) == {"a": SIX[:4]}
    (tmp_path / "a" / "annotations.xml").rename(tmp_path / "v.xml")
    assert seen(tmp_path) == {"v": SIX[:4]}
    (tmp_path / "v.xml").unlink()
    text(tmp_path / "a" / "annotations.xml", ['<!DOCTYPE a [<!ENTITY b "b">]><annotations>&b;</annotations>'])
    assert "document type" in sources.open("mot", tmp_path).read("a")[1][0].detail


def test_settings_are_of_the_run(tmp_path):
    pictures(tmp_path / "a" / "img1")
    text(tmp_path / "a" / "tracks.txt", [line(n) for n in range(1, 7)])
    text(tmp_path / "out" / "a.txt", [line(n, 9) for n in range(1, 3)])
    assert seen(tmp_path, tracks=str(tmp_path / "out"))["a"] == [("9", 1), ("9", 2)]
    assert seen(tmp_path, tracks=str(tmp_path / "out" / "{sequence}.txt"))["a"] == [("9", 1), ("9", 2)]
    assert sources.open("mot", tmp_path, settings=MotConfig(box="xywh")).read("a")[0]


COMMAS = [
    "{f},1,100,5,20,25,20,0,50,0",  # all with two decimals, or whole and with a tail
    "{f},1,100,50,20,00,20,25,50,00,1,-1,-1,-1",
    "{f}, 1, 100,5, 20,25, 20,0, 50,0, 0,95",
]


@pytest.mark.parametrize("row", COMMAS)
def test_decimal_commas_between_commas_are_refused_with_both_readings(tmp_path, row):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", [row.format(f=f) for f in range(1, 7)])
    said = r"left 100, top 50?, width 20, height \d+, by the second left 100.50?, top 20"
    with pytest.raises(SourceError, match=said):
        frames_of(tmp_path)


def test_who_says_what_boxes_are_has_whole_numbers(tmp_path):
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", [COMMAS[0].format(f=f) for f in range(1, 7)])
    assert frames_of(tmp_path, box="xywh") == SIX_FRAMES


def test_rows_of_many_lengths_of_whole_numbers_are_refused(tmp_path):
    video(tmp_path / "a" / "v.avi")
    rows = ["1,1,100,20,20,50,1,-1,-1,-1", "2,1,100,5,20,20,50,1,-1,-1,-1", "3,1,100,5,20,20,50,5,1,-1,-1,-1"]
    text(tmp_path / "a" / "tracks.txt", [*rows, *(line(n) for n in (4, 5, 6))])
    with pytest.raises(
        SourceError, match=r"commas may stand between columns or in numbers.* rows have 10 to 12 columns"
    ):
        frames_of(tmp_path)


@pytest.mark.parametrize("tail", ["1,-1,-1,-1", "1,1,1", "1,1,1,1", "1,4,0,0", "", "95", "1,-1,-1,-1,7,8"])
def test_whole_numbers_are_whole(tmp_path, tail):
    written = text(tmp_path / "tracks.txt", [line(n, tail=tail) for n in range(1, 7)])
    assert mottext.table(written).doubt == ""


def test_numbers_in_quotes(tmp_path):
    video(tmp_path / "a" / "v.avi")
    good = ['{f},1,"100,0","20,0","20,0","50,0"', '{f},1,100,20,20,"50.0"', '{f},"1",100,20,20,"50,00"']
    bad = ['3,1,"1,000",20,20,50', '3,1,"1,234.5",20,20,50']  # a thousand or one; beyond the frame
    rows = [row.format(f=n) for n, row in zip((1, 2, 4), good, strict=True)]
    text(tmp_path / "a" / "tracks.txt", [*rows, *bad, line(6)])
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert [(image.frame, image.box) for image in images if image.frame != 3] == [(n, BOX) for n in (1, 2, 4, 6)]
    assert rejects[0].reason == "malformed line"
    assert "1?000" in rejects[0].detail


def test_rows_that_are_longer_than_their_header_are_not_read(tmp_path):
    """As R's write.table leaves them, without a name for the names of the rows."""
    video(tmp_path / "a" / "v.avi")
    text(tmp_path / "a" / "tracks.txt", ["frame,id,x,y,w,h", *(f"{n + 40},{line(n, tail='')}" for n in range(1, 7))])
    images, rejects = sources.open("mot", tmp_path).read("a")
    assert images == []
    assert {reject.detail.rpartition(", ")[2] for reject in rejects} == {"got 7"}


def test_a_line_that_goes_on_costs_itself(tmp_path):
    written = text(tmp_path / "tracks.txt", [line(1), line(2) + "," * 200_000, line(3)])
    table = mottext.table(written)
    assert [row.frame for row in table.rows] == [1, 3]
    assert "200,0" in table.rejects[0].detail
