"""The whole run on flat pictures whose features are their colors, so that every number is known by hand."""

import collections
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from cion_jax.common import checksums
from cion_jax.data import shards
from data_prep.denoise.settings import SharedNeighborSettings
from data_prep.pipeline import run
from data_prep.pipeline.beam import RunError
from data_prep.pipeline.workdir import OutputError, Work
from tests.data_prep.painted import GREEN, RED, STREET, A, B, MeanColor, by_key, content, job, paint


def spoil_second_video(call, features):
    if call == 1:
        raise OSError("the extractor fell over")
    return features


def test_levels_by_hand(tmp_path, mean_color):
    metrics = run.run(job(paint(tmp_path / "in"), tmp_path / "out"))
    levels = {level["name"]: level for level in metrics["levels"]}
    assert list(levels) == ["input", "single_tracklet", "single_video", "cross_video"]
    assert [level["images"] for level in levels.values()] == [13, 11, 12, 12]
    assert [level["identities"] for level in levels.values()] == [5, 5, 4, 3]
    # Both tracklets of A have radius 1 - 1/sqrt(10) = 0.68. Of the red ones A.t0, B.u0 and B.u2 all pairs are
    # within 0.18 (1 - 3/sqrt(10) = 0.05): 6 ordered pairs of 5 identities; at level 2 B's two have joined.
    assert [level["consistency_noise"] for level in levels.values()] == [0.4, 0, 0, 0]
    assert [level["discrimination_noise"] for level in levels.values()] == [1.2, 1.2, 0.5, 0]
    assert [level["noise"] for level in levels.values()] == pytest.approx([1.6, 1.2, 0.5, 0])
    assert not any("pairwise_f1" in level for level in levels.values())
    assert metrics["selection"]["images"] == 12
    assert metrics == json.loads((tmp_path / "out" / "metrics.json").read_text())


def test_provenance_says_what_each_level_did(tmp_path, mean_color):
    run.run(job(paint(tmp_path / "in"), tmp_path / "out"))
    rows = by_key(tmp_path / "out")
    moved, lost, kept = rows[f"{A}/t0/002.jpg"], rows[f"{A}/t1/002.jpg"], rows[f"{B}/u0/000.jpg"]
    assert (moved["level1_round"], moved["level2_action"], moved["level2_tracklet"]) == (1, "moved", "t1")
    assert moved["level1_distance"] == pytest.approx(1, abs=0.02)
    assert moved["level2_distance"] == pytest.approx(0, abs=0.02)
    assert moved["identity"] == rows[f"{A}/t1/000.jpg"]["identity"]
    assert (lost["level2_action"], lost["level2_tracklet"], lost["identity"]) == ("discarded", None, None)
    assert lost["level2_distance"] == pytest.approx(1, abs=0.02)
    assert (lost["selected"], lost["record"]) == (False, None)
    assert (kept["level1_round"], kept["level2_action"], kept["level2_tracklet"]) == (0, "kept", "u0")
    assert kept["level2_distance"] is None
    assert kept["identity"] == rows[f"{A}/t0/000.jpg"]["identity"] == rows[f"{B}/u2/000.jpg"]["identity"]
    assert kept["level2_identity"] == rows[f"{B}/u2/000.jpg"]["level2_identity"]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_shards_hold_what_provenance_says(tmp_path, mean_color, suffix):
    root = paint(tmp_path / "in", suffix=suffix)
    run.run(job(root, tmp_path / "out"))
    reader = shards.ShardReader(tmp_path / "out")
    rows = {row["record"]: row for row in by_key(tmp_path / "out").values() if row["selected"]}
    assert sorted(rows) == list(range(len(reader))) == list(range(12))
    for number, record in enumerate(reader.read(list(rows.keys()))):
        row = rows[list(rows)[number]]
        assert (record["key"], record["identity"]) == (row["key"], row["identity"])
        if suffix == ".jpg":
            assert record["image"] == (root / row["path"]).read_bytes()
        else:
            found = cv2.imdecode(np.frombuffer(record["image"], np.uint8), cv2.IMREAD_COLOR)
            expected = cv2.imread(str(root / row["path"]))
            assert np.abs(found.astype(int) - expected).max() <= 4


@pytest.mark.parametrize("name", ["metrics.json", "index.npz", "dataset_info.json", "rejected.jsonl", "SHA256SUMS"])
def test_a_damaged_data_set_is_written_again_by_the_same_command(tmp_path, mean_color, name, capsys):
    the_job, out = job(paint(tmp_path / "in"), tmp_path / "out"), tmp_path / "out"
    run.run(the_job)
    before = content(out)
    files = {path.name for path in out.iterdir() if path.is_file()}
    assert checksums.read(out / checksums.SUMS).keys() == files - {checksums.SUMS}
    if not (out / name).stat().st_size:
        (out / name).write_text("x")
    data = bytearray((out / name).read_bytes())
    data[3 if name == checksums.SUMS else len(data) // 2] ^= 4  # its middle is of a shard, which is not read
    (out / name).write_bytes(data)
    run.run(the_job)
    assert "that is done now" in capsys.readouterr().err
    assert content(out) == before


def test_a_finished_run_is_left_alone(tmp_path, mean_color):
    the_job = job(paint(tmp_path / "in"), tmp_path / "out")
    first = run.run(the_job)
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")}
    assert run.run(the_job) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").rglob("*")} == before
    assert MeanColor.calls == 2


def test_a_run_that_broke_continues_and_ends_with_the_same_bytes(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "undisturbed"))
    mean_color(spoil_second_video)
    with pytest.raises(RunError, match=r"1 of 2 videos.*fell over.*same command tries again"):
        run.run(job(root, tmp_path / "out"))
    assert not (tmp_path / "out" / "metrics.json").exists()
    mean_color()
    run.run(job(root, tmp_path / "out"))
    assert MeanColor.calls == 1  # the video that was done is not embedded again
    assert content(tmp_path / "out") == content(tmp_path / "undisturbed")


def test_a_run_that_stopped_after_the_shards_is_finished(tmp_path, mean_color):
    the_job = job(paint(tmp_path / "in"), tmp_path / "out")
    first = run.run(the_job)
    (tmp_path / "out" / "metrics.json").unlink()
    assert run.run(the_job) == first


def test_other_settings_are_refused(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    run.run(job(root, tmp_path / "out"))
    with pytest.raises(OutputError, match=r"config\.sigma_cst: None there, 0\.3 now"):
        run.run(job(root, tmp_path / "out", sigma_cst=0.3))


def test_bad_features_are_set_aside_by_reason(tmp_path, mean_color):
    def spoil(call, features):
        if call == 0:
            features[0], features[1] = np.nan, 0
        return features if call < 2 else np.ones((len(features), 7), np.float32) / np.sqrt(7)

    mean_color(spoil)
    street = STREET | {"z": {"t0": [RED, RED]}}
    metrics = run.run(job(paint(tmp_path / "in", street), tmp_path / "out"))
    assert metrics["rejected"] == {
        "features all zero": 1,
        "features not finite": 1,
        "wrong width of features": 2,
    }
    lines = [json.loads(x) for x in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert {line["where"] for line in lines} == {
        f"{A}/t0/000.jpg",
        f"{A}/t0/001.jpg",
        "z/t0/000.jpg",
        "z/t0/001.jpg",
    }
    assert metrics["levels"][0]["images"] == 11


def test_too_few_rows_of_features_fail_the_video(tmp_path, mean_color):
    mean_color(lambda call, features: features[1:])
    with pytest.raises(RunError, match="expected one row each"):
        run.run(job(paint(tmp_path / "in"), tmp_path / "out"))


def test_unreadable_images_and_empty_videos_are_counted(tmp_path, mean_color):
    root = paint(tmp_path / "in")
    cut = root / B / "u0" / "000.jpg"
    cut.write_bytes(cut.read_bytes()[:200])
    (root / "empty" / "t0").mkdir(parents=True)
    metrics = run.run(job(root, tmp_path / "out"))
    assert sum(metrics["rejected"].values()) == 2
    assert metrics["levels"][0]["images"] == 12


def test_nothing_usable_is_an_error(tmp_path, mean_color):
    mean_color(lambda call, features: features * np.nan)
    with pytest.raises(
        RunError,
        match=rf"no usable image.*<tracklet>/<image>; set aside:\n  13 features not finite, first {A}/t0/000\.jpg: ",
    ):
        run.run(job(paint(tmp_path / "in"), tmp_path / "out"))


def test_nothing_left_to_write_is_an_error(tmp_path, mean_color):
    root = paint(tmp_path / "in", {A: {"t0": [RED]}})
    with pytest.raises(RunError, match=r"no image is left.*'identity too small': 1.*min_identity_images"):
        run.run(job(root, tmp_path / "out"))


def test_long_tracklets_are_thinned_evenly(tmp_path, mean_color):
    root = paint(tmp_path / "in", {A: {"t0": [RED] * 9}})
    metrics = run.run(job(root, tmp_path / "out", max_tracklet_images=3))
    assert metrics["rejected"] == {"thinned tracklet": 6}
    assert sorted(by_key(tmp_path / "out")) == [f"{A}/t0/00{i}.jpg" for i in (0, 4, 8)]


def test_an_extractor_is_asked_for(tmp_path):
    with pytest.raises(RunError, match=r"--embedder as one of .*onnx:FILE"):
        run.run(job(paint(tmp_path / "in"), tmp_path / "out", embedder=None))


@pytest.mark.parametrize("embedder", [None, "mean"])
def test_known_identities_go_straight_to_shards(tmp_path, mean_color, embedder):
    root = paint(tmp_path / "in")
    entries = [(f"{A}/t0/000.jpg", 30), (f"{B}/u0/000.jpg", 30), (f"{B}/u1/000.jpg", 7), (f"{B}/u1/001.jpg", 7)]
    entries.append((f"{A}/t1/000.jpg", 9))
    (root / "list.json").write_text(json.dumps([{"file_path": path, "id": i} for path, i in entries]))
    metrics = run.run(job(root, tmp_path / "out", "annotations", embedder))
    (level,) = metrics["levels"]
    assert (level["name"], level["images"], level["identities"]) == ("input", 5, 3)
    assert level.get("noise") == (None if embedder is None else 0)
    found = shards.ShardReader(tmp_path / "out").read([0, 1, 2, 3])
    images = {30: {entries[0][0], entries[1][0]}, 7: {entries[2][0], entries[3][0]}}
    rows = by_key(tmp_path / "out")
    groups = [{rows[r["key"]]["path"] for r in found if r["identity"] == i} for i in (0, 1)]
    assert sorted(map(sorted, groups)) == sorted(map(sorted, images.values()))
    assert metrics["selection"]["not_selected"]["identity too small"] == 1
    (alone,) = [row for row in rows.values() if not row["selected"]]
    assert (alone["truth"], alone["identity"], alone["record"]) == (9, 2, None)  # numbered after those written


def test_scores_use_only_images_of_known_truth(tmp_path, mean_color):
    names = {"0002_c1s1_000001_01": RED, "0002_c1s1_000002_01": RED, "0002_c2s1_000001_01": RED}
    names |= {"0003_c1s1_000001_02": GREEN, "0003_c1s1_000002_02": GREEN, "-1_c1s1_000003_03": RED}
    (tmp_path / "in").mkdir()
    for name, color in names.items():
        _, data = cv2.imencode(".jpg", np.full((16, 8, 3), color[::-1], np.uint8))
        (tmp_path / "in" / f"{name}.jpg").write_bytes(data)
    levels = run.run(job(tmp_path / "in", tmp_path / "out", "market1501"))["levels"]
    # Pairs of the truth: 3 of person 2, 1 of person 3. Tracklets find 2; linked, all 4, and 3 wrong with junk.
    assert levels[0]["pairwise_recall"] == pytest.approx(2 / 4)
    assert levels[3]["pairwise_recall"] == 1
    assert levels[3]["pairwise_precision"] == pytest.approx(4 / 7)


def test_the_default_finds_what_the_colors_say(tmp_path, mean_color, caplog):
    metrics = run.run(job(paint(tmp_path / "in"), tmp_path / "out", preset="cion_jax"))
    assert "the published thresholds are taken" in caplog.text
    assert metrics["calibration"] == {"calibrated": False, "different people": "too few tracklets"}
    rows = by_key(tmp_path / "out")
    moved = rows[f"{A}/t0/002.jpg"]
    assert (moved["level1_round"], moved["level2_action"], moved["level2_tracklet"]) == (1, "moved", "t1")
    red = {row["identity"] for key, row in rows.items() if "/u0/" in key or "/u2/" in key}
    assert red == {rows[f"{A}/t0/000.jpg"]["identity"]}


def crowd(root: Path, seconds=range(1, 4)) -> Path:
    """Two people of the same looks, who co-occur in one camera and linked by a third tracklet in another."""
    root.mkdir()
    for name in [f"{person:04d}_c1s1_{t:06d}_0{person}" for person in (1, 2) for t in seconds] + [
        f"0003_c2s1_{t:06d}_01" for t in seconds
    ]:
        cv2.imwrite(str(root / f"{name}.jpg"), np.full((16, 8, 3), RED[::-1], np.uint8))
    return root


@pytest.mark.parametrize(("linkage", "expected"), [("published", 2), ("shared_neighbors", 1)])
def test_cannot_link_holds_through_another_video(tmp_path, mean_color, linkage, expected):
    root = crowd(tmp_path / "in")
    free = run.run(job(root, tmp_path / "free", "market1501", linkage=linkage))
    assert free["levels"][3]["identities"] == 1
    apart = run.run(job(root, tmp_path / "apart", "market1501", linkage=linkage, cannot_link=True))
    # By shared neighbors they count as one person found twice: there are no boxes, and they look the same.
    assert apart["levels"][3]["identities"] == expected


def test_positions_are_no_times(tmp_path, mean_color):
    # Tracklets of folders have frame numbers that may be mere positions: nobody co-occurs.
    root = paint(tmp_path / "in", {A: {"t0": [RED, RED], "t1": [RED, RED]}})
    metrics = run.run(job(root, tmp_path / "out", cannot_link=True))
    assert [level["identities"] for level in metrics["levels"]] == [2, 2, 1, 1]


@pytest.mark.parametrize("preset", ["paper", "cion_jax"])
@pytest.mark.parametrize("cannot_link", [False, True])
def test_features_are_read_five_times(tmp_path, mean_color, monkeypatch, preset, cannot_link):
    # Once to sample distances, once by the method in every video, once by it and the noise within videos, and twice at
    # level 3 (centroids, then the distances to them).
    read, features = collections.Counter(), Work.features
    monkeypatch.setattr(Work, "features", lambda work, video: read.update([video]) or features(work, video))
    run.run(job(paint(tmp_path / "in"), tmp_path / "out", preset=preset, cannot_link=cannot_link))
    assert read == {A: 5, B: 5}


def test_the_record_of_a_run_has_what_its_result_depends_on(tmp_path, mean_color):
    config = {"shared_neighbors": SharedNeighborSettings(k1=7), "preset": "cion_jax"}
    metrics = run.run(job(paint(tmp_path / "in"), tmp_path / "out", **config))
    assert metrics["method"] == "shared_neighbors"
    assert metrics["settings"]["shared_neighbors.k1"] == 7
    assert metrics["settings"]["cooccurrence.max_iou"] == 0.5
    assert "shared_neighbors.tracklet_prior" in (tmp_path / "out" / "README.md").read_text()
    with pytest.raises(OutputError, match=r"config.shared_neighbors.k1: 7 there, 32 now"):
        run.run(job(paint(tmp_path / "again"), tmp_path / "out", preset="cion_jax"))
