"""What a benchmark makes of file names."""

import numpy as np
import pytest

from cion_jax.reid import benchmarks


@pytest.fixture
def market(tmp_path):
    """Makes a Market-named folder of empty files; names are never opened."""

    def make(query=("0002_c1s1_000451_03.jpg",), gallery=("0002_c2s1_000001_01.jpg",)):
        for part, names in (("query", query), ("bounding_box_test", gallery)):
            (tmp_path / part).mkdir()
            for name in names:
                (tmp_path / part / name).touch()
        return tmp_path

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
            folder = tmp_path / part / f"{person:04d}" if person == 2 else tmp_path / part
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name.format(person, camera)).touch()
    benchmark = benchmarks.load("market1501", tmp_path)
    assert [images.identity.tolist() for images in (benchmark.query, benchmark.gallery)] == [[1, 2], [1, 2]]
    assert [set(images.camera) for images in (benchmark.query, benchmark.gallery)] == [{1}, {2}]
    assert not benchmark.warnings()


def test_doubled_suffix(market):
    benchmark = benchmarks.load("market1501", market(query=["1488_c1s6_023021_00.jpg.jpg"]))
    assert (benchmark.query.identity.tolist(), benchmark.warnings()) == ([1488], [])


def test_names_that_say_nothing_are_counted_and_listed(market):
    odd = [f"crop{i}.jpg" for i in range(7)]
    benchmark = benchmarks.load("market1501", market(query=["0002_c1s1_000451_03.jpg", *odd]))
    (warning,) = benchmark.warnings()
    assert len(benchmark.query) == 1
    assert warning.startswith("query: 7 files left out, not named like 0002_c1s1_000451_03.jpg: crop0.jpg, ")
    assert warning.endswith("crop4.jpg, ...")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ([], "no image to use in .*query: got 0 images"),
        (["-1_c1s1_000451_03.jpg"], r"got 1 images, 1 of them junk \(id -1\)"),
        (["a.jpg"], r"query: 1 files left out, not named like 0002_c1s1_000451_03.jpg: a.jpg"),
    ],
)
def test_nothing_to_use(market, query, message):
    with pytest.raises(benchmarks.BenchmarkError, match=message):
        benchmarks.load("market1501", market(query=query))


def test_missing_folder_and_unknown_benchmark(tmp_path):
    with pytest.raises(benchmarks.BenchmarkError, match=r"no folder .*query; expected a Market-1501 folder"):
        benchmarks.load("market1501", tmp_path)
    with pytest.raises(benchmarks.BenchmarkError, match="did you mean 'market1501'"):
        benchmarks.load("market", tmp_path)


def test_market_has_its_published_size(data):
    benchmark = benchmarks.load("market1501", data / "market1501")
    query, gallery = benchmark.query, benchmark.gallery
    assert (len(query), len(gallery), gallery.junk) == (3368, 15913, 3819)
    assert (len(set(query.identity)), (gallery.identity == 0).sum()) == (750, 2798)
    assert set(query.camera) == set(gallery.camera) == set(range(1, 7))
    assert not benchmark.warnings()
