"""Several processes as one run: started for real on this machine, with the numbers of one process."""

import os
import signal
import time

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from cion_jax.common.typed_config import ConfigError
from cion_jax.data.groups import EpochPlan, Timeline, Units
from cion_jax.data.records import Index
from cion_jax.distributed import multihost, sharding
from cion_jax.distributed.liveness import LOST
from cion_jax.distributed.preemption import LEFT
from cion_jax.training.config import MeshConfig
from tests import toy
from tests.runs import SHORT, Process, assert_same_run, final_state, finish, nothing_left_running, rows, together

__all__ = ["nothing_left_running"]
HOST = os.uname().nodename
ENDLESS = (SHORT[0], "--config.train.epochs=100000", "--config.train.checkpoint_every=1000000")


@pytest.fixture(scope="module")
def alone(shards, tmp_path_factory):
    """Workdir of one process's run of 15 steps."""
    workdir = tmp_path_factory.mktemp("alone") / "w"
    finish(Process(workdir, shards, SHORT[0]))
    return workdir


def _config(shards, **changes):
    return toy.config(shards, data__curriculum=((0, 2),), **changes)


def _plan(shards):
    """[steps, 8] records of every batch of the run."""
    units = Units.of(Index.load(shards), "identity")
    timeline = Timeline(units, 3, 8, ((0, 2),))
    positions = [timeline.at(step) for step in range(timeline.total_steps)]
    starts = [(p.epoch, 4 * p.step_in_epoch) for p in positions]
    return np.array([EpochPlan(units, 0, epoch, 2).groups(slice(g, g + 4)).ravel() for epoch, g in starts])


def _check(count, shards, workdir, alone, shares, *flags):
    """`count` processes end like one; process i reads its columns `shares[i]` of every batch, and no other record."""
    processes = together(count, workdir, shards, SHORT[0], *flags, environ=lambda i: {"READS": f"{workdir}.reads.{i}"})
    finish(*processes)
    assert_same_run(alone, workdir, _config(shards))
    for i, process in enumerate(processes):
        read = sorted(np.loadtxt(f"{workdir}.reads.{i}", int))
        assert read == sorted(_plan(shards)[:, shares[i]].ravel())
        assert ("step 15/15" in process.said()) == (i == 0)


def test_two_processes_are_one_run(shards, alone, tmp_path):
    _check(2, shards, tmp_path / "w", alone, [slice(0, 4), slice(4, 8)])


@pytest.mark.slow
def test_four_processes_are_one_run(shards, alone, tmp_path):
    _check(4, shards, tmp_path / "w", alone, [slice(2 * i, 2 * i + 2) for i in range(4)])


@pytest.mark.slow
def test_processes_that_share_prototypes_read_the_same_images(shards, alone, tmp_path):
    mesh = ("--config.mesh.data=1", "--config.mesh.fsdp=2", "--config.mesh.model=2")
    _check(4, shards, tmp_path / "w", alone, [slice(0, 4), slice(0, 4), slice(4, 8), slice(4, 8)], *mesh)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_other_which_names_it(shards, tmp_path, victim):
    processes = together(2, tmp_path / "w", shards, *ENDLESS)
    assert processes[0].until("step 5/"), processes[0].said()
    killed = time.monotonic()
    processes[victim].kill()
    survivor = processes[1 - victim]
    assert survivor.end() == LOST == 76, survivor.said()
    assert time.monotonic() - killed < 30
    assert f"error: process {victim} ({HOST}) is gone" in survivor.said().splitlines()[-1]


@pytest.mark.slow
def test_a_process_that_stops_tells_the_others_why(shards, tmp_path):
    processes = together(2, tmp_path / "w", shards, *ENDLESS, environ=lambda i: {"FAIL_AT": "5" if i else ""})
    assert processes[1].end() == 2, processes[1].said()
    assert processes[0].end() == LOST, processes[0].said()
    assert f"process 1 ({HOST}) stopped: ShardError: made to fail" in processes[0].said().splitlines()[-1]


@pytest.mark.slow
def test_one_process_asked_to_leave_takes_the_others_along(shards, tmp_path):
    processes = together(2, tmp_path / "w", shards, *ENDLESS)
    assert processes[0].until("step 5/"), processes[0].said()
    processes[1].kill(signal.SIGTERM)
    assert [process.end(30) for process in processes] == [LEFT, LEFT], processes[0].said()
    step = int(final_state(_config(shards), tmp_path / "w").step)
    assert rows(tmp_path / "w")[-1]["step"] == step
    assert f"left: step {step:,} of" in processes[0].said()


@pytest.mark.slow
def test_processes_with_other_settings_do_not_start(shards, tmp_path):
    processes = together(2, tmp_path / "w", shards, SHORT[0], environ=lambda i: {"SEED": str(i)})
    assert [process.end() for process in processes] == [2, 2], processes[0].said()
    assert "process 1 was given another config than process 0" in processes[0].said()


@pytest.mark.slow
def test_unreadable_images_of_all_processes_are_counted(tmp_path):
    toy.write_shards(tmp_path / "shards", broken=lambda image: image.tracklet == "3")
    allowed = "--config.data.max_skipped=0.2"
    finish(*together(2, tmp_path / "w", tmp_path / "shards", SHORT[0], allowed))
    finish(Process(tmp_path / "one", tmp_path / "shards", SHORT[0], allowed))
    assert rows(tmp_path / "w")[-1]["skipped"] == rows(tmp_path / "one")[-1]["skipped"] > 0


@pytest.mark.slow
def test_resumed_on_other_meshes_and_numbers_of_processes(shards, tmp_path):
    """Two processes, then one on one device, on eight, on eight in shards, and two processes of four devices."""
    common = (SHORT[0], "--config.data.batch_size=16", "--config.train.epochs=6")
    finish(Process(tmp_path / "alone", shards, *common, "--config.train.steps=10"))
    w = tmp_path / "w"
    finish(*together(2, w, shards, *common, "--config.train.steps=2"))
    finish(Process(w, shards, *common, "--config.train.steps=4"))
    finish(Process(w, shards, *common, "--config.train.steps=6", devices=8))
    sharded = ("--config.mesh.data=1", "--config.mesh.fsdp=4", "--config.mesh.model=2")
    finish(Process(w, shards, *common, *sharded, "--config.train.steps=8", devices=8))
    finish(*together(2, w, shards, *common, *sharded, "--config.train.steps=10", devices=4))
    assert [row["step"] for row in rows(w)] == list(range(1, 11))
    assert_same_run(tmp_path / "alone", w, _config(shards, data__batch_size=16))


SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_JOB_ID": "7"}
TPU = {"TPU_ML_PLATFORM": "JAX"}


@pytest.mark.parametrize(
    ("environ", "cluster"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_STEP_NUM_TASKS": "1"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_JOB_ID": "7"}, None),  # the batch script itself, outside srun
        ({"OMPI_COMM_WORLD_SIZE": "2"}, "ompi"),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (TPU, "gcetpu"),
        (TPU | {"TPU_SKIP_MDS_QUERY": "1"}, None),
        (TPU | {"JAX_PLATFORMS": "cpu"}, None),
        (TPU | {"TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        (TPU | {"TPU_WORKER_HOSTNAMES": "a"}, None),
        (TPU | {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
    ],
)
def test_where_the_environment_speaks_of_several_processes(environ, cluster):
    assert multihost.detected(environ) == cluster


def test_a_place_given_by_hand():
    assert multihost.place(None, None, None) is None
    assert multihost.place("[::1]:80", 2, 1) == multihost.Place("[::1]:80", 2, 1)
    for wrong in (("a:1", 2, None), ("a:1", None, 0), (None, 2, 0)):
        with pytest.raises(ConfigError, match="all three are needed"):
            multihost.place(*wrong)
    for wrong in (("a", 2, 0), (":1", 2, 0), ("a:b", 2, 0), ("a:1", 2, 2)):
        with pytest.raises(ConfigError, match="expected HOST:PORT"):
            multihost.place(*wrong)


def test_one_process_takes_all_rows():
    assert multihost.rows(sharding.BATCH, sharding.make_mesh(MeshConfig(4, 2, 1)), 16) == [(0, 16)]
    assert multihost.rows(P(), sharding.make_mesh(MeshConfig(1, 1, 8)), 16) == [(0, 16)]
    assert jax.process_count() == 1
