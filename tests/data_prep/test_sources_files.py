"""Sources of picture files: market1501, tracklets, annotations; and how pictures are decoded."""

import csv
import json

import cv2
import numpy as np
import pytest

from cion_jax.common import images
from data_prep import sources
from data_prep.types import Reject, SourceError


def picture(seed=0, height=32, width=16):
    coarse = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(coarse, (width, height))


def put(path, data=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(images.encode_jpeg(picture()) if data is None else data)
    return path


def everything(source):
    read = [source.read(video) for video in source.videos()]
    return [i for images, _ in read for i in images], [r for _, rejects in read for r in rejects] + source.rejected


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp"])
def test_other_formats_decode_to_rgb_and_truncated_ones_raise(suffix):
    options = [cv2.IMWRITE_WEBP_QUALITY, 101] if suffix == ".webp" else []
    data = cv2.imencode(suffix, picture()[:, :, ::-1], options)[1].tobytes()
    np.testing.assert_array_equal(images.decode(data), picture())
    for cut in (2, len(data) // 2):
        with pytest.raises(images.PictureError, match="expected a whole JPEG, PNG"):
            images.decode(data[:-cut])


def test_jpeg_round_trip_and_truncated_jpeg():
    data = images.encode_jpeg(picture())
    assert np.abs(images.decode(data).astype(int) - picture()).mean() < 3
    for cut in (1, len(data) // 2):
        with pytest.raises(images.PictureError, match=r"bytes\); expected one whole JPEG"):
            images.decode(data[:-cut])
    with pytest.raises(images.PictureError, match="empty"):
        images.decode(b"")


def test_unknown_source_option_and_folder(tmp_path):
    with pytest.raises(SourceError, match="did you mean 'market1501'"):
        sources.open("market", tmp_path)
    with pytest.raises(SourceError, match="did you mean 'tracks'"):
        sources.open("mot", tmp_path, track="x.txt")
    with pytest.raises(SourceError, match=r"'tracklets' takes no options, got 'tracks'"):
        sources.open("tracklets", tmp_path, tracks="x.txt")
    with pytest.raises(SourceError, match="no such input"):
        sources.open("mot", tmp_path / "absent")


@pytest.mark.parametrize("name", sources.REGISTRY.names())
def test_empty_root_says_what_was_expected(name, tmp_path):
    with pytest.raises(SourceError, match="expected"):
        sources.open(name, tmp_path)
    with pytest.raises(SourceError, match="expected"):
        sources.open(name, put(tmp_path / "text", b"no"))


def test_market1501_groups_by_person_sequence_and_gap(tmp_path):
    names = ["0002_c1s1_000100_01", "0002_c1s1_000400_01", "0002_c1s1_000701_02", "0002_c1s2_000702_01"]
    names += ["0002_c2s1_000703_01", "0005_c1s1_000050_01", "0000_c1s1_000010_01", "0000_c1s1_000010_02"]
    names += ["-1_c1s1_000020_01", "0006_c1s1_000090_01.jpg"]
    for name in names:
        put(tmp_path / f"{name}.jpg")
    for name in ["holiday", "0002_c1s1_000100_01 (copy)"]:
        put(tmp_path / f"{name}.jpg")
    put(tmp_path / "Thumbs.db", b"x")
    source = sources.open("market1501", tmp_path)
    images, rejects = everything(source)
    tracklets = {}
    for image in images:
        tracklets.setdefault((image.video, image.tracklet), []).append((image.frame, image.truth))
    assert source.videos() == ["c1s1", "c1s2", "c2s1"]
    assert list(tracklets.values()) == [
        [(10, -1)], [(10, -1)], [(20, -1)], [(50, 5)], [(90, 6)],
        [(100, 2), (400, 2)], [(701, 2)], [(702, 2)], [(703, 2)],
    ]  # fmt: skip
    assert [r.reason for r in rejects] == ["malformed name", "file out of place", "malformed name"]
    assert "got 'holiday.jpg', expected PERSON_cCAMERAsSEQUENCE_FRAME_BOX" in rejects[2].detail
    assert not source.identified
    assert source.jpeg(images[0]) == (tmp_path / images[0].path).read_bytes()


def test_market1501_train_folder_has_the_tracklets_of_its_index(data):
    source = sources.open("market1501", data / "market1501")
    images, rejects = everything(source)
    with open(data / "market1501" / "index.csv") as file:
        rows = {row["file"]: row for row in csv.DictReader(file) if row["split"] == "bounding_box_train"}
    pairs = {(rows[i.path.split("/")[-1]]["tracklet"], i.video, i.tracklet) for i in images}
    assert (len(images), len(source.videos()), len(rejects)) == (12936, 25, 0)
    assert len(pairs) == len({p[0] for p in pairs}) == len({p[1:] for p in pairs}) == 5178
    assert all(i.truth == int(rows[i.path.split("/")[-1]]["id"]) for i in images)
    assert len({i.key for i in images}) == 12936


def test_tracklets_read_names_numbers_and_what_is_wrong(tmp_path):
    for name in ["f10.jpg", "f9.jpg", "f100.jpg"]:
        put(tmp_path / "Straße 1" / "a b" / name)
    for name in ["1_07.jpg", "2_03.jpg"]:
        put(tmp_path / "Straße 1" / "shuffled" / name)
    for name in ["z.png", "b.jpg"]:
        put(tmp_path / "Straße 1" / "ünnamed" / name, cv2.imencode(name[-4:], picture())[1].tobytes())
    (tmp_path / "Straße 1" / "leer").mkdir()
    put(tmp_path / "Straße 1" / "loose.jpg")
    put(tmp_path / "Straße 1" / "a b" / "notes.txt", b"x")
    put(tmp_path / "readme.txt", b"x")
    source = sources.open("tracklets", tmp_path)
    images, rejects = everything(source)
    assert [(i.tracklet, i.key.split("/")[-1], i.frame) for i in images] == [
        ("a b", "f9.jpg", 9), ("a b", "f10.jpg", 10), ("a b", "f100.jpg", 100),
        ("shuffled", "1_07.jpg", 0), ("shuffled", "2_03.jpg", 1), ("ünnamed", "b.jpg", 0), ("ünnamed", "z.png", 1),
    ]  # fmt: skip
    crops = list(source.crops(images))
    assert all(crop.shape == (32, 16, 3) for _, crop in crops)
    assert source.jpeg(images[0])
    assert source.jpeg(images[-1]) is None
    assert sorted((r.reason, r.where.split("/")[-1]) for r in rejects) == [
        ("empty tracklet", "leer"), ("file out of place", "loose.jpg"),
        ("file out of place", "notes.txt"), ("file out of place", "readme.txt"),
    ]  # fmt: skip


def test_unreadable_images_become_rejects_and_the_others_stay(tmp_path):
    whole = put(tmp_path / "v" / "t" / "1.jpg").read_bytes()
    put(tmp_path / "v" / "t" / "2.jpg", whole[:-40])
    put(tmp_path / "v" / "t" / "3.jpg", b"")
    put(tmp_path / "v" / "t" / "4.png", b"no picture")
    source = sources.open("tracklets", tmp_path)
    images, _ = source.read("v")
    crops = [crop for _, crop in source.crops(images)]
    assert crops[0].shape == (32, 16, 3)
    assert all(isinstance(crop, Reject) and crop.reason == "unreadable image" for crop in crops[1:])
    assert [crop.where for crop in crops[1:]] == ["v/t/2.jpg", "v/t/3.jpg", "v/t/4.png"]
    assert "empty" in crops[2].detail


def test_annotations_are_identified_and_bad_entries_set_aside(tmp_path):
    for name in ["sec0/a.jpg", "sec0/b.jpg", "sec1/d/c.png", "top.jpg"]:
        put(tmp_path / name)
    rows = [
        {"file_path": "sec0/a.jpg", "id": 7}, {"file_path": "sec0/./b.jpg", "id": 7},
        {"file_path": "sec1/d/c.png", "id": 3}, {"file_path": "top.jpg", "id": 10},
        {"file_path": "sec0/a.jpg", "id": 8}, {"file_path": "../out.jpg", "id": 1},
        {"file_path": "/etc/x.jpg", "id": 1}, {"file_path": "sec0/gone.jpg", "id": 1}, {"file_path": "sec0/a.jpg"},
        {"file_path": "sec0/a.jpg", "id": 1.5}, {"file_path": "sec0/a.jpg", "id": True},
        {"file_path": "sec0/a.jpg", "id": -1}, {"file_path": "sec0/a.jpg", "id": " "}, {"file_path": 4, "id": 1},
        "text",
    ]  # fmt: skip
    (tmp_path / "list.json").write_text(json.dumps(rows))
    source = sources.open("annotations", tmp_path)
    images, rejects = everything(source)
    assert source.identified
    assert [(i.key, i.tracklet, i.truth, i.frame) for i in images] == [
        ("./10/top.jpg", "10", 10, -1), ("sec0/7/a.jpg", "7", 7, -1), ("sec0/7/b.jpg", "7", 7, -1),
        ("sec1/3/d/c.png", "3", 3, -1),
    ]  # fmt: skip
    reasons = [r.reason for r in rejects]
    assert reasons == ["missing file", *["path outside the image root"] * 2, *["malformed entry"] * 7, "duplicate key"]
    assert rejects[3].where.endswith("list.json[8]")
    assert "sec0/a.jpg of 8 besides sec0/a.jpg of 7" in rejects[-1].detail
    same = sources.open("annotations", tmp_path / "list.json")
    assert everything(same) == (images, rejects)


def test_annotation_ids_that_are_text_are_numbered(tmp_path):
    for name in ["a.jpg", "b.jpg", "c.jpg"]:
        put(tmp_path / "sec0" / name)
    ids = {"a": "p10", "b": "p9", "c": "p10"}
    rows = [{"file_path": f"sec0/{k}.jpg", "id": v} for k, v in ids.items()]
    (tmp_path / "l.json").write_text(json.dumps(rows))
    images, _ = everything(sources.open("annotations", tmp_path))
    assert {i.path: (i.tracklet, i.truth) for i in images} == {
        "sec0/a.jpg": ("p10", 1), "sec0/b.jpg": ("p9", 0), "sec0/c.jpg": ("p10", 1),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[\n {"file_path": "a.jpg" "id": 1}]', r"line 2, column 24: .*expected a JSON list"),
        ('{"a": 1}', "got a JSON dict, expected a list"),
        ("[]", "no usable entry"),
        ('[{"file_path": "../a.jpg", "id": 1}]', "the first of 1 rejects: got '../a.jpg'"),
    ],
)
def test_useless_annotation_files_are_errors(tmp_path, text, message):
    (tmp_path / "l.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        sources.open("annotations", tmp_path)
    (tmp_path / "m.json").write_text("[]")
    with pytest.raises(SourceError, match=r"exactly one \.json in .*got l\.json, m\.json"):
        sources.open("annotations", tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("l.csv", "id,file_path,id\n1,a.jpg,2", "got two columns called id; expected one"),
        ("l.csv", "file_path,id\n0,a.jpg,2", "first of 1 rejects: got .*, 3 fields, the header has 2"),
        ("l.json", '[{"file_path": "a.jpg", "id": 1, "id": 2}]', "an entry has a name twice: .*'id', 'id'"),
    ],
)
def test_lists_that_say_two_things_are_refused(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(SourceError, match=message):
        sources.open("annotations", tmp_path / name)


def test_a_list_as_spreadsheets_write_unicode(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.full((8, 4, 3), 90, np.uint8))
    (tmp_path / "l.txt").write_bytes("file_path\tid\na.jpg\t7\n".encode("utf-16"))
    source = sources.open("annotations", tmp_path / "l.txt")
    assert [image.path for video in source.videos() for image in source.read(video)[0]] == ["a.jpg"]
