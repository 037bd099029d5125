"""What benchmarks make of files that are named as the originals are."""

import numpy as np
import pytest
import scipy.io

from cion_jax.common.errors import UserError
from cion_jax.reid import benchmarks

ALICE, BOB = "0002_c1s1_000451_03.jpg", "0005_c3s1_000001_00.jpg"


@pytest.fixture
def tree(tmp_path):
    """Makes empty files; they are never opened."""

    def make(**folders):
        for folder, names in folders.items():
            for name in [names] if isinstance(names, str) else names:
                path = tmp_path / folder.replace("__", "/") / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        return tmp_path

    return make


@pytest.fixture
def market(tree):
    """Makes a Market-named folder."""

    def make(query=(ALICE,), gallery=("0002_c2s1_000001_01.jpg",), **more):
        folder = tree(query=query, bounding_box_test=gallery, **more)
        for part in ("query", "bounding_box_test"):
            (folder / part).mkdir(exist_ok=True)
        return folder

    return make


def test_junk_leaves_and_distractors_stay(market):
    gallery = ["0002_c12s1_000001_01.jpg", "0000_c3s2_000002_01.jpg", "-1_c4s1_000003_01.jpg", "Thumbs.db"]
    benchmark = benchmarks.load("market1501", market(gallery=gallery))
    assert [p.name for p in benchmark.gallery.paths] == [
        "0000_c3s2_000002_01.jpg",
        "0002_c12s1_000001_01.jpg",
    ]
    np.testing.assert_array_equal(benchmark.gallery.identity, [0, 2])
    np.testing.assert_array_equal(benchmark.gallery.camera, [3, 12])
    assert (benchmark.gallery.junk, len(benchmark.query), benchmark.warnings()) == (1, 1, [])


@pytest.mark.parametrize("name", ["{:04d}_c{}_f0046985.jpg", "{:04d}_c{}_01.png", "{:04d}_c{:03d}_00016450_0.jpg"])
def test_names_of_other_benchmarks_and_folders_per_person(tmp_path, name):
    for part, camera in (("query", 1), ("bounding_box_test", 2)):
        for person in (1, 2):
            folder = tmp_path / part / f"{person:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name.format(person, camera)).touch()
    benchmark = benchmarks.load("market1501", tmp_path)
    assert [images.identity.tolist() for images in (benchmark.query, benchmark.gallery)] == [[1, 2], [1, 2]]
    assert [set(images.camera) for images in (benchmark.query, benchmark.gallery)] == [{1}, {2}]


def test_doubled_suffix(market):
    benchmark = benchmarks.load("market1501", market(query=["0002_c1s6_023021_00.jpg.jpg"]))
    assert (benchmark.query.identity.tolist(), benchmark.warnings()) == ([2], [])


def test_names_that_say_nothing_are_counted_and_listed(market):
    odd = [f"crop{i}.jpg" for i in range(7)]
    benchmark = benchmarks.load("market1501", market(query=[ALICE, *odd]))
    (warning,) = benchmark.warnings()
    assert len(benchmark.query) == 1
    assert warning.startswith("query: 7 files left out, their names are of no known form: crop0.jpg, ")
    assert warning.endswith("crop4.jpg, ...")


def test_further_distractors_of_any_name(market):
    folder = market(distractors=["a.jpg", "b.jpg", "list.txt"])
    benchmark = benchmarks.load("market1501_500k", folder)
    np.testing.assert_array_equal(benchmark.gallery.identity, [2, 0, 0])
    assert benchmark.protocol.endswith("2 further distractors in the gallery")
    (folder / "distractors").rename(folder / "more")
    with pytest.raises(benchmarks.BenchmarkError, match=r"no distractors in .* expected a folder distractors or"):
        benchmarks.load("market1501_500k", folder)


@pytest.mark.parametrize("name", ["dukemtmc", "occluded_duke"])
def test_duke(tree, name):
    folder = tree(query=["0005_c2_f0046985.jpg"], bounding_box_test=["0005_c7_f0064000.jpg", "0033_c7_f0001.jpg"])
    benchmark = benchmarks.load(name, folder)
    assert benchmark.name == name
    np.testing.assert_array_equal(benchmark.gallery.identity, [5, 33])
    np.testing.assert_array_equal(benchmark.gallery.camera, [7, 7])


@pytest.mark.parametrize("inside", ["", "detected__"])
def test_cuhk03_of_either_folder(tree, inside):
    folder = tree(**{f"{inside}query": ["0003_c1_21.png"], f"{inside}bounding_box_test": ["0003_c2_26.png"]})
    benchmark = benchmarks.load("cuhk03_np_detected", folder)
    assert (benchmark.label, benchmark.gallery.camera.tolist()) == ("detected", [2])
    assert "detected boxes" in benchmark.protocol


MSMT = {"query": "0000/0000_000_01_0303morning_0015_0.jpg 0", "gallery": "0000/0000_003_14_0303noon_0043_1.jpg 0"}


@pytest.fixture
def msmt(tree):
    """Makes MSMT17 with lists and a test folder of either version."""

    def make(test="test", **lists):
        lines = {part: [*line.splitlines()] for part, line in (MSMT | lists).items()}
        folder = tree(**{test: [line.split(" ")[0] for part in lines.values() for line in part]})
        for part, some in lines.items():
            (folder / f"list_{part}.txt").write_text("".join(f"{line}\n" for line in some))
        return folder

    return make


@pytest.mark.parametrize("test", ["test", "mask_test_v2"])
def test_msmt17_counts_people_from_0(msmt, test):
    benchmark = benchmarks.load("msmt17", msmt(test), protocol="train")
    assert benchmark.query.identity.tolist() == [1]  # identity 0 is a person, not a distractor
    assert (benchmark.query.camera.tolist(), benchmark.gallery.camera.tolist()) == ([1], [14])
    assert benchmark.label == "train"
    assert "training on the train list alone" in benchmark.protocol
    assert all(path.is_file() for path in benchmark.query.paths)


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"query": "0000/0000_000_x1_morning.jpg 0"}, r"1 lines unlike .* line 1: '0000/0000_000_x1_morning.jpg 0'"),
        ({"query": MSMT["query"][:-1] + "x"}, "1 lines unlike"),
    ],
)
def test_msmt17_with_other_lines(msmt, lists, message):
    with pytest.raises(benchmarks.BenchmarkError, match=message):
        benchmarks.load("msmt17", msmt(**lists))


def test_msmt17_without_files(msmt, tmp_path):
    with pytest.raises(benchmarks.BenchmarkError, match=r"no test or mask_test_v2 in .* got: no such folder"):
        benchmarks.load("msmt17", tmp_path / "nowhere")
    folder = msmt()
    next((folder / "test").rglob("*.jpg")).unlink()
    with pytest.raises(benchmarks.BenchmarkError, match=r"1 of 1 files of .*list_.*txt are not there, the first: "):
        benchmarks.load("msmt17", folder)
    with pytest.raises(benchmarks.BenchmarkError, match="--protocol of msmt17 is one of train, trainval, got 'all'"):
        benchmarks.load("msmt17", folder, protocol="all")
    with pytest.raises(benchmarks.BenchmarkError, match="market1501 has no --protocol, got 'train'"):
        benchmarks.load("market1501", folder, protocol="train")


@pytest.fixture
def mars(tree):
    """Tracklets: person 1 twice (three and two images), a distractor, junk."""
    names = [f"0001C1T0001F00{i}.jpg" for i in (1, 2, 3)] + [f"0001C2T0001F00{i}.jpg" for i in (1, 2)]
    names += ["0000C3T0001F001.jpg", "00-1C3T0001F001.jpg"]
    folder = tree(**{f"bbox_test__{name[:4]}": [n for n in names if n[:4] == name[:4]] for name in names})
    (folder / "info").mkdir()
    (folder / "info" / "test_name.txt").write_text("\n".join(names))
    rows = np.array([[1, 3, 1, 1], [4, 5, 1, 2], [6, 6, 0, 3], [7, 7, -1, 3]])
    scipy.io.savemat(folder / "info" / "tracks_test_info.mat", {"track_test_info": rows})
    scipy.io.savemat(folder / "info" / "query_IDX.mat", {"query_IDX": np.array([[1]])})
    return folder


def test_mars_pools_tracklets(mars):
    benchmark = benchmarks.load("mars", mars)
    query, gallery = benchmark.query, benchmark.gallery
    assert (len(query), len(query.paths), len(gallery), len(gallery.paths), gallery.junk) == (1, 3, 2, 3, 1)
    assert (gallery.identity.tolist(), gallery.camera.tolist()) == ([1, 0], [2, 3])
    features = np.array([[1.0, 0], [3, 2], [5, 5]])
    np.testing.assert_array_equal(gallery.pooled(features), [[2, 1], [5, 5]])
    left = gallery.take(np.array([False, True, True]))
    np.testing.assert_array_equal(left.pooled(features[1:]), [[3, 2], [5, 5]])
    left = gallery.take(np.array([False, False, True]))  # nothing of the first tracklet
    assert (left.identity.tolist(), left.pooled(features[2:]).tolist()) == ([0], [[5, 5]])


def test_mars_with_other_files(mars):
    (mars / "bbox_test" / "0001" / "0001C1T0001F002.jpg").unlink()
    with pytest.raises(benchmarks.BenchmarkError, match=r"1 of 3 images of 1 tracklets are not in .*C1T0001F002.jpg"):
        benchmarks.load("mars", mars)
    (mars / "info" / "query_IDX.mat").write_bytes(b"no MATLAB")
    with pytest.raises(benchmarks.BenchmarkError, match=r"query_IDX\.mat cannot be read as a MATLAB file"):
        benchmarks.load("mars", mars)


def test_any_folder_by_a_pattern(tree):
    folder = tree(query=["anna-yard-1.png", "bert-hall-1.png"], gallery=["anna-hall-2.png", "bert-hall-3.png", "x.png"])
    benchmark = benchmarks.load("folder", folder, pattern=r"(?P<id>\w+)-(?P<cam>\w+)-\d\.png")
    assert (benchmark.query.identity.tolist(), benchmark.query.camera.tolist()) == ([1, 2], [2, 1])
    assert benchmark.gallery.camera.tolist() == [1, 1]
    assert benchmark.warnings() == ["gallery: 1 files left out, their names are of no known form: x.png"]


def test_any_folder_by_the_usual_names(tree):
    benchmark = benchmarks.load("folder", tree(query=["0012_c3_x.jpg"], gallery=["12_c1.jpg", "0000_c2_9.jpg"]))
    assert (benchmark.query.identity.tolist(), benchmark.gallery.identity.tolist()) == ([12], [0, 12])


def test_names_that_are_no_text_are_read_or_told(tree):
    folder = tree(query=["1_c1_\udcff.jpg"], gallery=["1_c2.jpg", "\udcff.jpg"])
    benchmark = benchmarks.load("folder", folder)
    assert (benchmark.query.identity.tolist(), len(benchmark.gallery.unnamed)) == ([1], 1)


def test_tables(tree):
    folder = tree(a=["1.jpg", "2.jpg", "3.jpg"])
    rows = ["a/1.jpg,anna,yard,query", "a/2.jpg,anna,hall,gallery", "a/3.jpg,0,hall,gallery"]
    (folder / "images.csv").write_text("\n".join(["path,identity,camera,split", *rows]))
    one = benchmarks.load("folder", folder)
    (folder / "images.csv").unlink()
    for part in ("query", "gallery"):
        lines = [row.rpartition(",")[0] for row in rows if row.endswith(part)]
        (folder / f"{part}.csv").write_text("\n".join(["path,identity,camera", *lines]))
    two = benchmarks.load("folder", folder)
    for benchmark in (one, two):
        assert (benchmark.query.identity.tolist(), benchmark.gallery.identity.tolist()) == ([1], [1, 0])
        assert benchmark.gallery.paths[0] == folder / "a" / "2.jpg"


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("path,identity,split\na/1.jpg,1,query", "lacks camera; got columns path, identity, split"),
        ("path,identity,camera,split\na/1.jpg,1,,query", "line 2: got .* expected a path, an identity and a camera"),
        ("path,identity,camera,split\na/9.jpg,1,1,query", "line 2: there is no .*a/9.jpg"),
        (
            "path,identity,camera,split\na/1.jpg,1,1,probe",
            "split of 1.jpg is 'probe', expected query, gallery or train",
        ),
        ("path,identity,camera,split\na/1.jpg,1,1,query", "no image to use in gallery of the tables"),
        ("path,identity,camera,split\n7,a/1.jpg,1,1,query", "line 2: got 5 fields, the header has 4; put what has a"),
        (
            "path,identity,identity,camera,split\na/1.jpg,1,2,1,query",
            "has a column twice; got columns path, identity, i",
        ),
        (
            "path;identity;camera;split\na/1.jpg;1;1;query",
            "lacks path, .*; got columns path;identity;camera;split, exp",
        ),
        (
            "path,identity,camera,split\na/1.jpg,1,1,query\na/1.jpg,1,1,query",
            "1 pictures occur twice in query of .*1.jp",
        ),
        ("path,identity,camera,split\na/1.jpg,1,1,query\na/1.jpg,1,2,gallery", "as of two people or cameras: 1.jpg"),
        (f"path,identity,camera,split\n{'x' * 200_000},1,1,query", "is no CSV: field larger than field limit"),
        (b"path,identity,camera,split\na/\xe9.jpg,1,1,query", "is no text in UTF-8"),
    ],
)
def test_wrong_tables(tree, table, message):
    folder = tree(a=["1.jpg"])
    (folder / "images.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    with pytest.raises(UserError, match=message):
        benchmarks.load("folder", folder)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_spreadsheets_and_data_frames(tree, encoding):
    folder = tree(a=["1.jpg", "2.jpg"])
    table = "Path, Identity ,Camera,Split\na/1.jpg,7.0,1,Query\na/2.jpg,7,2,Gallery\n"
    (folder / "images.csv").write_bytes(table.encode(encoding))
    benchmark = benchmarks.load("folder", folder)
    assert (benchmark.query.identity.tolist(), benchmark.gallery.identity.tolist()) == ([7], [7])
    assert benchmarks.tables(folder) == [folder / "images.csv"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<id>.*", "is no regular expression that can be used: missing \\)"),
        (r"(?P<id>\d+).*", r"lacks \(\?P<cam>...\), which read identity and camera"),
        (r"(?P<id>\d+)-(?P<cam>\d+)", "reads none of 1 names in .*query: 1_c1.jpg; give --pattern=REGEX"),
    ],
)
def test_wrong_patterns(tree, pattern, message):
    with pytest.raises(benchmarks.BenchmarkError, match=message):
        benchmarks.load("folder", tree(query=["1_c1.jpg"], gallery=["1_c2.jpg"]), pattern=pattern)


@pytest.mark.parametrize(
    ("query", "gallery", "message"),
    [
        ([], [BOB], "no image in .*query; expected some like 0002_c1s1_000451_03.jpg"),
        (["-1_c1s1_000451_03.jpg"], [BOB], r"no image to use in .*query.* got 1 named images, all junk \(id -1\)"),
        (["a.jpg"], [BOB], "got 0 named images, all junk .* and 1 of no known form: a.jpg"),
        ([ALICE], [BOB], "no identity of the queries is in the gallery; read identities 2 in 1 queries .* and 5 in 1"),
        (["0000_c1s1_000451_03.jpg"], ["0000_c2s1_000001_00.jpg"], "no identity of the queries"),
        ([ALICE], [ALICE], "no query has a match of another camera; read cameras 1 in the queries .* and 1 in the gal"),
    ],
)
def test_nothing_to_find(market, query, gallery, message):
    with pytest.raises(benchmarks.BenchmarkError, match=message):
        benchmarks.load("market1501", market(query=query, gallery=gallery))


def test_missing_folder_and_unknown_benchmark(tree, tmp_path):
    with pytest.raises(
        benchmarks.BenchmarkError, match=r"no folder .*query; expected one .*; there is no .*nowhere ei"
    ):
        benchmarks.load("market1501", tmp_path / "nowhere")
    with pytest.raises(benchmarks.BenchmarkError, match=r"no folder .*query; expected one .*; .* holds probe"):
        benchmarks.load("market1501", tree(probe=["x.jpg"]))
    with pytest.raises(UserError, match="did you mean 'market1501'"):
        benchmarks.load("market", tmp_path)


def test_market_has_its_published_size(data):
    benchmark = benchmarks.load("market1501", data / "market1501")
    query, gallery = benchmark.query, benchmark.gallery
    assert (len(query), len(gallery), gallery.junk) == (3368, 15913, 3819)
    assert (len(set(query.identity)), (gallery.identity == 0).sum()) == (750, 2798)
    assert set(query.camera) == set(gallery.camera) == set(range(1, 7))
    assert not benchmark.warnings()
