"""Layouts of peers: folders of crops at any depth, benchmarks' names, lists in other spellings, LUPerson's lmdb."""

import json
import pickle

import lmdb
import numpy as np
import pytest

from cion_jax.common import images
from data_prep import doctor, sources
from data_prep.config import AnnotationsConfig
from data_prep.types import Reject, SourceError

JPEG = images.encode_jpeg(np.full((32, 16, 3), 90, np.uint8))


def put(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(JPEG)
    return root


def read(source):
    """(video, tracklet) of every image, and all rejects."""
    found = [source.read(video) for video in source.videos()]
    pairs = [(image.video, image.tracklet) for some, _ in found for image in some]
    return pairs, source.rejected + [reject for _, some in found for reject in some]


@pytest.mark.parametrize(
    ("names", "pairs"),
    [
        (["7/1.jpg", "8/1.jpg"], [("in", "7"), ("in", "8")]),
        (["v/7/1.jpg", "w/8/1.jpg"], [("v", "7"), ("w", "8")]),
        (["scen1/view1/7/1.jpg", "scen1/view2/7/1.jpg"], [("scen1/view1", "7"), ("scen1/view2", "7")]),  # LPW
        (["crops/person/7/1.jpg", "crops/car/8/1.jpg"], [("crops/person", "7")]),
    ],
)
def test_crops_at_any_depth(tmp_path, names, pairs):
    found, rejects = read(sources.open("tracklets", put(tmp_path / "in", *names)))
    assert found == pairs
    assert [reject.reason for reject in rejects] == ["not a person"] * (len(names) - len(pairs))


def test_folders_that_are_no_tracklets_are_refused(tmp_path):
    with pytest.raises(SourceError, match="called as classes are, expected a folder per tracklet"):
        doctor.check(sources.open("tracklets", put(tmp_path / "a", "person/1.jpg", "car/1.jpg")))
    people = put(tmp_path / "b", "0001/0001_c1s1_000001_00.jpg", "0001/0001_c2s1_000001_00.jpg")
    with pytest.raises(SourceError, match=r"crops of several cameras .*--source=market1501"):
        doctor.check(sources.open("tracklets", people))
    with pytest.raises(SourceError, match=r"at several depths, 1 in .*7, 2 in .*v"):
        sources.open("tracklets", put(tmp_path / "c", "7/1.jpg", "v/8/1.jpg"))


def test_links_to_tracklets_are_followed(tmp_path):
    put(tmp_path / "in", "v/7/1.jpg")
    put(tmp_path / "else", "8/1.jpg")
    (tmp_path / "in" / "v" / "8").symlink_to(tmp_path / "else" / "8")
    (tmp_path / "in" / "v" / "7" / "up").symlink_to(tmp_path / "in")
    assert read(sources.open("tracklets", tmp_path / "in"))[0] == [("v", "7"), ("v", "8")]


def test_mars_has_its_tracklets_in_the_names(tmp_path):
    names = [f"bbox_train/0001/0001C{c}T{t:04d}F{f:03d}.jpg" for c, t in ((1, 1), (1, 2), (2, 1)) for f in (1, 2)]
    source = sources.open("market1501", put(tmp_path, *names, "bbox_train/00-1/00-1C1T0001F001.jpg"))
    pairs, rejects = read(source)
    assert not rejects
    assert not source.timed
    assert sorted({video: len({t for v, t in pairs if v == video}) for video in ("c1", "c2")}.items()) == [
        ("c1", 3),
        ("c2", 1),
    ]
    assert {image.truth for video in source.videos() for image in source.read(video)[0]} == {1, -1}


def test_duke_and_msmt17(tmp_path):
    duke = put(tmp_path / "duke", "0005_c2_f0046985.jpg", "0005_c2_f0046990.jpg", "0006_c2_f0046985.jpg")
    source = sources.open("market1501", duke)
    assert source.timed
    assert sorted(read(source)[0]) == [("c2", "046985_00_5"), ("c2", "046985_00_5"), ("c2", "046985_00_6")]
    msmt = sources.open("market1501", put(tmp_path / "msmt", "train/0000/0000_000_01_0303morning_0008_0.jpg"))
    assert msmt.read("c1s0303morning")[0][0].truth == 0


LISTS = {
    "list.json": lambda rows: json.dumps([{"img_path": path, "id": i} for path, i in rows]),
    "synthpedes_dataset.json": lambda rows: json.dumps(
        [{"id": i, "file_path": path, "attributes": ["man"], "captions": ["a", "b"]} for path, i in rows]
    ),
    "wrapped.json": lambda rows: json.dumps({"info": 1, "images": [{"path": path, "pid": i} for path, i in rows]}),
    "lines.jsonl": lambda rows: "\n".join(
        json.dumps({"image": path, "id": i * 99, "person_id": i}) for path, i in rows
    ),
    "lines.json": lambda rows: "\n".join(json.dumps({"image": path, "id": float(i)}) for path, i in rows),
    "table.csv": lambda rows: "id,caption,file_path\n" + "".join(f'{i},"a, b",{path}\n' for path, i in rows),
    "table.tsv": lambda rows: "file_name\tid\n" + "".join(f"{path}\t{i}\n" for path, i in rows),
    "windows.json": lambda rows: json.dumps([{"file_path": p.replace("/", "\\"), "id": str(i)} for p, i in rows]),
}


def test_a_text_of_paths_and_ids(tmp_path):
    put(tmp_path, "a/1.jpg", "a/2.jpg")
    (tmp_path / "train.txt").write_text("a/1.jpg 7\na/2.jpg 8\na/2.jpg\n")
    source = sources.open("annotations", tmp_path / "train.txt")
    assert [(image.path, image.truth) for image in source.read("a")[0]] == [("a/1.jpg", 7), ("a/2.jpg", 8)]
    assert "expected a path and an id" in source.rejected[0].detail


@pytest.mark.parametrize("name", LISTS)
def test_lists_in_other_spellings(tmp_path, name):
    rows = [("Part1/7/1.jpg", 7), ("Part1/7/2.jpg", 7), ("Part2/9/1.jpg", 9)]
    put(tmp_path, *(path for path, _ in rows))
    (tmp_path / name).write_text(LISTS[name](rows))
    source = sources.open("annotations", tmp_path)
    assert not source.rejected
    assert [(i.path, i.truth) for v in source.videos() for i in source.read(v)[0]] == rows


def test_the_root_of_a_list(tmp_path):
    put(tmp_path / "pictures", "a/1.jpg")
    put(tmp_path / "list" / "imgs", "b/1.jpg")
    listed = tmp_path / "list" / "l.json"
    listed.write_text(json.dumps([{"file_path": "a/1.jpg", "id": 1}]))
    source = sources.open("annotations", listed)
    with pytest.raises(SourceError, match=r"--config.annotations.root=DIR"):
        doctor.check(source)
    source = sources.open("annotations", listed, settings=AnnotationsConfig(root=str(tmp_path / "pictures")))
    assert len(source.read("a")[0]) == 1
    with pytest.raises(SourceError, match="is no folder"):
        sources.open("annotations", listed, settings=AnnotationsConfig(root=str(tmp_path / "gone")))
    listed.write_text(json.dumps([{"file_path": "b/1.jpg", "id": 2**70}]))
    images = sources.open("annotations", listed).read("b")[0]  # beside the list, in imgs/
    assert [(image.tracklet, image.truth) for image in images] == [(str(2**70), 0)]


def test_one_bad_line_costs_itself(tmp_path):
    put(tmp_path, "a/1.jpg")
    (tmp_path / "l.jsonl").write_text('{"file_path": "a/1.jpg", "id": 1}\n{"file_path": \n' + "[" * 5000 + "\n")
    source = sources.open("annotations", tmp_path)
    assert [reject.where.rpartition(":")[2] for reject in source.rejected] == ["2", "3"]
    (tmp_path / "l.jsonl").unlink()
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(SourceError, match=r"nested too deeply|expected a JSON list"):
        sources.open("annotations", tmp_path)


def database(root, keys, listed):
    environment = lmdb.open(str(root / "lmdb"), map_size=1 << 20)
    with environment.begin(write=True) as transaction:
        for key in keys:
            transaction.put(key.encode(), JPEG)
    environment.close()
    (root / "keys.pkl").write_bytes(pickle.dumps(listed))
    return sources.open("luperson", root)


def test_luperson(tmp_path):
    keys = ["00_01_0002_00000000", "00_01_0002_00000001", "00_01_0003_00000000"]
    source = database(tmp_path, keys[:2], keys)
    assert source.videos() == ["00_01_0002", "00_01_0003"]
    found, _ = source.read("00_01_0002")
    assert [image.tracklet for image in found] == keys[:2]  # nothing says that two crops belong together
    assert [crop.shape for _, crop in source.crops(found)] == [(32, 16, 3)] * 2
    assert source.jpeg(found[0]) == JPEG
    ((_, gone),) = source.crops(source.read("00_01_0003")[0])
    assert isinstance(gone, Reject)


def test_luperson_nl(tmp_path):
    keys = ["00001_5_1", "00001_5_2", "00001_6_1", "00002_5_1"]
    source = database(tmp_path, keys, {"keys": keys, "pids": [5, 5, 6, 5]})
    assert read(source)[0] == [("00001", "5"), ("00001", "5"), ("00001", "6"), ("00002", "5")]
    with pytest.raises(SourceError, match="has 1 pids for 4 keys"):
        database(tmp_path, [], {"keys": keys, "pids": [1]})


class _Evil:
    def __reduce__(self):
        return print, ("code of a pickle ran",)


@pytest.mark.parametrize("listed", [_Evil(), {"keys": [_Evil()]}, ["a", _Evil()], 7, {"keys": [b"x"]}])
def test_no_code_of_a_pickle_runs(tmp_path, listed, capsys):
    with pytest.raises(SourceError, match="expected"):
        database(tmp_path, [], listed)
    assert "ran" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "data", [b"", b"\x80\x04", b"\x80\x02(r\xff\xff\xff\x7f.", b"\x80\x04\x8d" + b"\xff" * 7 + b"\x7f"]
)
def test_a_damaged_pickle_is_refused(tmp_path, data):
    (tmp_path / "lmdb").mkdir()
    (tmp_path / "lmdb" / "data.mdb").touch()
    (tmp_path / "keys.pkl").write_bytes(data)
    with pytest.raises(SourceError, match=r"keys.pkl: "):
        sources.open("luperson", tmp_path)


def test_query_and_gallery_are_not_learned_from(tmp_path):
    put(
        tmp_path,
        "my_train/0001_c1s1_000001_00.jpg",
        "query/0002_c1s1_000001_00.jpg",
        "bounding_box_test/0002_c2s1_000001_00.jpg",
    )
    source = sources.open("market1501", tmp_path)
    assert source.videos() == ["c1s1"]
    assert [image.truth for image in source.read("c1s1")[0]] == [1]
    assert [reject.reason for reject in source.rejected] == ["folder of the evaluation"] * 2
    assert sources.open("market1501", tmp_path / "query").videos() == ["c1s1"]  # who names it means it


def test_beside_a_folder_of_people_other_words_are_other_classes(tmp_path):
    source = sources.open(
        "tracklets", put(tmp_path, "crops/person/7/1.jpg", "crops/tie/1/1.jpg", "crops/teddy bear/2/1.jpg")
    )
    pairs, rejects = read(source)
    assert pairs == [("crops/person", "7")]
    assert [reject.reason for reject in rejects] == ["not a person", "not a person"]


def test_a_tracklet_counts_once_whatever_links_lead_to_it(tmp_path):
    put(tmp_path, "v/1/1.jpg")
    (tmp_path / "v" / "2").symlink_to(tmp_path / "v" / "1")
    pairs, rejects = read(sources.open("tracklets", tmp_path))
    assert pairs == [("v", "1")]
    assert [reject.reason for reject in rejects] == ["folder twice"]


def test_an_archives_own_folders_are_passed_over(tmp_path):
    put(
        tmp_path,
        "__MACOSX/v/1/._1.jpg",
        "Market/bounding_box_train/0002_c1s1_000451_03.jpg",
        "Market/query/0003_c1s1_000451_03.jpg",
    )
    pairs, _ = read(sources.open("market1501", tmp_path))
    assert pairs == [("c1s1", "000451_03_2")]


def test_coco_has_no_people_in_its_ids(tmp_path):
    put(tmp_path, "s/a.jpg")
    (tmp_path / "l.json").write_text('{"images": [{"id": 1, "file_name": "s/a.jpg"}], "annotations": []}')
    with pytest.raises(SourceError, match="got COCO's format, where an id is a picture's"):
        sources.open("annotations", tmp_path)


def test_ids_that_are_all_different_are_told(tmp_path):
    put(tmp_path, "s/a.jpg", "s/b.jpg")
    (tmp_path / "l.csv").write_text("file_path,id\ns/a.jpg,1\ns/b.jpg,2\n")
    assert "no id of l.csv occurs twice" in sources.open("annotations", tmp_path).examine("s").notes[0]
