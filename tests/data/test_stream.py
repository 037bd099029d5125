"""The input pipeline: the plan's order, from any step, on any number of processes."""

import numpy as np
import pytest
import simplejpeg

from cion_jax.data.groups import EpochPlan, PlanError, Units
from cion_jax.data.shards import ShardError, ShardReader, Unreadable
from cion_jax.data.stream import IdentityStream
from tests.data.conftest import picture, write

CURRICULUM = ((0, 1), (2, 2), (3, 4))


def _run(folder, start=0, rows=None, kind="identity", curriculum=CURRICULUM, share=0.0, threads=2):
    options = {"curriculum": curriculum, "canvas": (48, 24), "threads": threads}
    stream = IdentityStream.open(folder, kind=kind, epochs=5, batch_size=8, seed=3, **options)
    return stream.timeline, stream.batches(start, rows, Unreadable(share))


def _same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[k], b[k]) for k in a)


def test_batches_follow_the_plan(dataset):
    timeline, run = _run(dataset)
    units = Units.of(ShardReader(dataset).index, "identity")
    seen = list(run)
    assert len(seen) == timeline.total_steps
    for step, batch in enumerate(seen):
        at = timeline.at(step)
        n = 8 // at.k
        plan = EpochPlan(units, 3, at.epoch, at.k)
        expected = plan.groups(np.arange(at.step_in_epoch * n, (at.step_in_epoch + 1) * n)).ravel()
        assert batch["record"].tolist() == expected.tolist()


def test_what_a_batch_holds(dataset):
    batch = next(_run(dataset)[1])
    assert batch["image"].shape == (8, 48, 24, 3)
    assert batch["image"].dtype == np.uint8
    assert batch["size"].tolist() == [[32, 16]] * 8
    assert batch["size"].dtype == np.int32
    assert np.array_equal(batch["identity"], ShardReader(dataset).index.identity[batch["record"]])
    for image, record in zip(batch["image"], batch["record"], strict=True):
        assert abs(image[:32, :16].astype(int) - picture(record)).max() < 8
        assert not image[32:].any()
        assert not image[:, 16:].any()


def test_a_start_anywhere_gives_what_an_undisturbed_run_sees(dataset):
    timeline, run = _run(dataset)
    undisturbed = list(run)
    edges = [phase[0] for phase in timeline.phases()]
    assert len(edges) == 3
    for start in {0, 1, *edges, *(e - 1 for e in edges[1:]), timeline.total_steps - 1}:
        resumed = list(_run(dataset, start)[1])
        assert len(resumed) == timeline.total_steps - start
        assert all(_same(a, b) for a, b in zip(resumed, undisturbed[start:], strict=True))


@pytest.mark.parametrize("threads", [0, 4])
def test_the_number_of_threads_changes_nothing(dataset, threads):
    pairs = zip(_run(dataset)[1], _run(dataset, threads=threads)[1], strict=True)
    assert all(_same(a, b) for a, b in pairs)


def test_parts_of_two_processes_make_the_batch_of_one(dataset):
    parts = [_run(dataset, rows=rows)[1] for rows in ([(0, 4)], [(4, 8)])]
    for whole, first, second in zip(_run(dataset)[1], *parts, strict=True):
        joined = {name: np.concatenate([first[name], second[name]]) for name in whole}
        assert _same(joined, whole)


def test_a_process_may_take_rows_that_are_apart(dataset):
    curriculum = ((0, 1), (2, 2))
    ends = _run(dataset, rows=[(0, 2), (6, 8)], curriculum=curriculum)[1]
    for whole, part in zip(_run(dataset, curriculum=curriculum)[1], ends, strict=True):
        assert _same({name: np.concatenate([x[:2], x[6:]]) for name, x in whole.items()}, part)


def test_groups_that_processes_cannot_share(dataset):
    with pytest.raises(PlanError, match=r"images 2 to 3 of a batch of 8, which cuts .* K = 4 .* multiple of 4"):
        list(_run(dataset, rows=[(2, 4)])[1])


def test_images_of_a_group_are_of_one_identity_or_one_tracklet(dataset):
    index = ShardReader(dataset).index
    for kind, label in (("identity", index.identity), ("tracklet", index.tracklet)):
        for batch in _run(dataset, kind=kind, curriculum=((0, 4),))[1]:
            groups = label[batch["record"]].reshape(2, 4)
            assert np.all(groups == groups[:, :1])


def test_instances_are_each_seen_once_an_epoch(dataset):
    timeline, run = _run(dataset, kind="instance", curriculum=((0, 1),))
    records = np.concatenate([b["record"] for b in run]).reshape(5, -1)
    assert timeline.steps_per_epoch == (4,) * 5
    assert all(len(set(epoch)) == 32 for epoch in records)


def _partly_broken(tmp_path, broken):
    whole = {n: simplejpeg.encode_jpeg(picture(n), quality=95) for n in range(38)}
    return write(tmp_path, jpeg=lambda n: whole[n][: 200 if n in broken else None])


def test_an_image_that_does_not_decode_is_replaced_from_its_group(tmp_path, caplog):
    folder = _partly_broken(tmp_path, {8})  # one of the nine of identity 2
    seen = list(_run(folder, curriculum=((0, 4),), share=0.1)[1])
    records = np.concatenate([b["record"] for b in seen]).reshape(-1, 4)
    assert 8 not in records
    groups = ShardReader(folder).index.identity[records]
    assert np.all(groups == groups[:, :1])
    assert all(b["size"].all() for b in seen)
    assert "identity_shards-train.array_record-00000-of-00004, record 8: " in caplog.text


def test_a_group_without_any_readable_image_is_replaced_by_another(tmp_path):
    folder = _partly_broken(tmp_path, {5, 6})  # all of identity 1
    seen = list(_run(folder, curriculum=((0, 2),), share=0.1)[1])
    assert all(1 not in b["identity"] and b["size"].all() for b in seen)


def test_too_many_unreadable_images_stop_the_run(tmp_path):
    folder = _partly_broken(tmp_path, {8})
    with pytest.raises(ShardError, match="could not be decoded"):
        list(_run(folder)[1])


def test_a_dataset_without_any_readable_image(tmp_path):
    folder = _partly_broken(tmp_path, set(range(38)))
    with pytest.raises(ShardError, match="no image of the dataset"):
        list(_run(folder, share=1.0)[1])
