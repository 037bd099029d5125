"""How right a clustering is, estimated: what is seen by hand, the regression's invariants, what is said of it."""

import dataclasses
import logging

import numpy as np
import pyarrow as pa
import pytest

from cion_jax.data import records
from cion_jax.neighbors.linkage import NO_PAIRS
from data_prep.config import Config
from data_prep.denoise import certificate, shared_neighbors
from data_prep.denoise.certificate import Certificate, Estimate, Kernel, Regression, confidences
from data_prep.denoise.evidence import NAMES, evidence, joined
from data_prep.output import dataset_card, doubts, shards
from data_prep.output.report import cases
from data_prep.types import Image
from tests.data_prep import small_run
from tests.data_prep.test_shared_neighbors import SHRINKAGE, TRUST, nodes, world

DEFAULT = Config().denoising
SURE = Estimate(0.8, 0.9, 0.95)


def test_joined_pairs_by_hand():
    # Identity 0: nodes 0 and 1 of one tracklet, node 2 of its video, node 3 of another; weights 1, 2, 1, 3.
    made = dataclasses.replace(
        nodes(np.eye(5, dtype=np.float32), np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 2, 3])),
        weight=np.array([1, 2, 1, 3, 1]),
    )
    found = joined(np.array([0, 0, 0, 0, 1]), made)
    assert (found.tracklet, found.video, found.across, found.all) == (2, 1 + 2, 3 + 6 + 3, 17)


def test_what_halves_find_too_supports_it():
    rows, video, tracklet, _ = world()
    made = nodes(rows, video, tracklet)
    identity = np.arange(len(rows)) // 16
    same = evidence(made, identity, lambda half: identity)
    assert same.values.shape == (len(NAMES),)
    assert (same.support == 1).all()
    alone = evidence(made, identity, lambda half: np.arange(len(half)))
    assert (alone.support == 0).all()
    by_name = dict(zip(NAMES, alone.values, strict=True))
    assert by_name["found by half"] < -5 < 5 < dict(zip(NAMES, same.values, strict=True))["found by half"]
    assert by_name["size"] == pytest.approx(np.log(16))
    assert np.isfinite(alone.values).all()


def test_halves_see_different_features():
    rows, video, tracklet, _ = world()
    seen = []
    evidence(nodes(rows, video, tracklet), tracklet, lambda half: (seen.append(half), tracklet)[1])
    assert [half.shape for half in seen] == [(len(rows), 16)] * 2
    np.testing.assert_allclose(np.linalg.norm(seen[0], axis=1), 1, atol=1e-5)
    assert abs(np.vdot(seen[0].T @ seen[1], np.ones((16, 16)))) / len(rows) < 1  # along axes of their own


def test_regression_knows_what_it_was_told_and_doubts_what_it_was_not():
    rng = np.random.default_rng(0)
    known = rng.standard_normal((40, len(NAMES))) * [1, 1, 1, *[0] * (len(NAMES) - 3)] + 5
    share = 1 / (1 + np.exp(5 - known[:, 0]))
    found = Regression(known, share, Kernel(1, 2, 0.05))
    for guess, true in zip(found(known), share, strict=True):
        assert guess.low <= true <= guess.high
        assert guess.value == pytest.approx(true, abs=0.05)
    (near,), (far,) = found(known[:1]), found(known[:1] + 20)
    assert far.high - far.low > 3 * (near.high - near.low)
    (wider,) = found(known[:1], 2)
    assert wider.low < near.low < wider.value == near.value < near.high < wider.high
    assert found.unlike(known)[0] == 0
    assert found.unlike(known[:1] + 20)[0] > 10


def test_the_reference_is_of_this_evidence():
    found = certificate.certify(np.zeros(len(NAMES)))
    for each in (found.precision, found.recall, found.input_precision, found.input_recall):
        assert 0 < each.low < each.value < each.high < 1


def test_confidence_has_the_estimated_precision_as_its_mean():
    identity, weight = np.array([0, 0, 0, 1, 1, 2]), np.array([1, 1, 1, 2, 2, 5])
    support = np.array([0.9, 0.9, 0.9, 0.3, 0.3, 1])
    found = confidences(identity, weight, support, 0.7)
    assert found[5] == 1  # alone
    assert found[0] == found[1] > found[3]
    assert (3 * found[0] + 4 * found[3]) / 7 == pytest.approx(0.7, abs=1e-6)


def estimated(precision=SURE, recall=SURE, of_input=SURE, unlike=0.5):
    return Certificate(precision, recall, of_input, of_input, unlike)


def test_what_is_worse_than_the_input_is_not_applied(monkeypatch, caplog):
    rows, video, tracklet, _ = world()
    made = nodes(rows, video, tracklet).normalized(SHRINKAGE, TRUST)
    bad = estimated(precision=Estimate(0.1, 0.2, 0.3), of_input=Estimate(0.5, 0.6, 0.7))
    for estimate, applied in ((bad, False), (estimated(), True)):
        monkeypatch.setattr(shared_neighbors, "certify", lambda values, estimate=estimate: estimate)
        with caplog.at_level(logging.INFO):
            found = shared_neighbors.certified(made, NO_PAIRS, NO_PAIRS, DEFAULT)
        assert (found.applied, found.certificate) == (applied, estimate)
        assert (len(np.unique(found.identity)) == len(np.unique(tracklet))) == (not applied)
    assert "no level is applied: the tracklets are better" in caplog.text
    assert "estimated without labels: precision 0.90 (0.80 to 0.95)" in caplog.text
    assert found.confidence is not None


def test_it_is_left_out_where_there_is_too_little_or_too_much(caplog):
    rows, video, tracklet, _ = world()
    made = nodes(rows, video, tracklet)
    small = dataclasses.replace(DEFAULT, search=dataclasses.replace(DEFAULT.search, exact_rows=10))
    assert shared_neighbors.certified(made, NO_PAIRS, NO_PAIRS, small).certificate is None
    assert "how right the identities are is not estimated: 192 sub-tracklets, at most 10" in caplog.text
    few = nodes(rows[:16], video[:16], tracklet[:16])
    assert shared_neighbors.certified(few, NO_PAIRS, NO_PAIRS, DEFAULT).certificate is None


def run(estimate, applied=True, **changes):
    plain = small_run.run()
    return small_run.run(
        clustering=dataclasses.replace(plain.clustering, certificate=estimate, applied=applied), **changes
    )


def test_doubts_are_said():
    usual = doubts.told(run(estimated()))
    assert [text.split(":")[0] for text in usual] == ["The world is small"]
    assert "4 tracklets" in usual[0]
    assert "was not estimated" in doubts.told(small_run.run())[1]
    assert "No world of known truth is like this one (distance 3.0" in doubts.told(run(estimated(unlike=3.0)))[1]
    assert "No level was applied" in doubts.told(run(estimated(), applied=False))[1]
    low = Estimate(0.1, 0.2, 0.3)
    assert "have collapsed (estimated precision 0.20)" in doubts.told(run(estimated(precision=low)))[1]
    levels = [dict(level) for level in small_run.run().levels]
    levels[-1]["noise"] = 2.0
    assert "The noise rose, from 1.5 to 2 per identity." in doubts.told(run(estimated(), levels=levels))
    table = small_run.table()
    alone = pa.array([0, 1, 0, 1, 1, 1, None, 2, 2], pa.int64())
    apart = table.set_column(table.column_names.index("identity"), "identity", alone)
    assert any(
        "Nobody was found in more than one video" in text for text in doubts.told(run(estimated(), images=apart))
    )
    assert doubts.told(run(estimated(), levels=levels[:1])) == []


def test_the_card_and_the_metrics_state_it():
    text = dataset_card.text(run(estimated()))
    assert "Over pairs of images: precision 0.90 (0.80 to 0.95), recall 0.90 (0.80 to 0.95)" in text
    found = doubts.certificate(run(estimated()))
    assert found["precision"] == {"low": 0.8, "value": 0.9, "high": 0.95}
    assert (found["interval"], found["unlike"], found["applied"]) == (0.9, 0.5, True)
    assert doubts.certificate(small_run.run()) is None


def test_cases_are_shown_most_doubtful_first():
    table = small_run.table()
    names = table["identity"].to_pylist()
    known = pa.array([None if name is None else (0.75, 0.25)[name] for name in names], pa.float64())
    columns = cases.Columns(table.set_column(table.column_names.index("confidence"), "confidence", known))
    shown = cases.final(columns, np.random.default_rng(0), 12).shown
    assert [case.caption for case in shown] == ["identity 1, confidence 0.25", "identity 0, confidence 0.75"]
    assert cases.linked(columns, np.random.default_rng(0), 12).shown[0].caption.endswith("confidence 0.75")


def test_the_index_holds_it(tmp_path):
    images = [Image(f"v/{i}/x.jpg", "v", f"{i}", 0, path="") for i in range(3)]
    columns = {"key": [image.key for image in images], "identity": [0, 1, 1], "record": [0, 1, 2]}
    for name, values in (("known", [0.5, 0.25, 0.25]), ("unknown", [None] * 3)):
        provenance = pa.table({**columns, "confidence": pa.array(values, pa.float64())})
        index = shards.write(tmp_path / name, images, [0, 1, 1], lambda image: b"\xff\xd8", provenance)
        assert records.Index.load(tmp_path / name).digest() == index.digest()
    assert records.confidence(tmp_path / "known").tolist() == [0.5, 0.25]
    assert records.confidence(tmp_path / "unknown") is None
