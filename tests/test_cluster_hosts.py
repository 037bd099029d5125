"""Cluster contrast through the real command: killed, and as two processes."""

import numpy as np
import pytest

from cion_jax.tasks.cluster import labels
from cion_jax.tasks.cluster.task import Cluster
from tests import clusters
from tests.runs import (
    Process,
    assert_bit_equal_run,
    assert_kills_change_nothing,
    assert_same_run,
    finish,
    nothing_left_running,
    together,
)

__all__ = ["nothing_left_running"]
pytestmark = pytest.mark.slow
FLAGS = ("--config.train.checkpoint_every=1",)


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return clusters.write_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def alone(market, tmp_path_factory):
    """Workdir of one process's run."""
    workdir = tmp_path_factory.mktemp("alone") / "w"
    finish(Process(workdir, market, *FLAGS, TASK="cluster"))
    return workdir


@pytest.fixture(scope="module")
def begun(market, tmp_path_factory):
    """The same of its first epoch and a step of the second."""
    workdir = tmp_path_factory.mktemp("begun") / "w"
    finish(Process(workdir, market, *FLAGS, "--config.train.steps=5", TASK="cluster"))
    return workdir


def _config(market):
    return Cluster(clusters.config(market)).config


def _two(workdir, market, steps):
    flags = (*FLAGS, f"--config.train.steps={steps}")
    finish(*together(2, workdir, market, *flags, environ=lambda i: {"TASK": "cluster"}))


def _same_labels(one, other):
    for number in range(2):
        np.testing.assert_array_equal(labels.read(one, number), labels.read(other, number))


def test_two_processes_are_one_run(market, begun, tmp_path):
    """Two devices of one process are the same bit for bit; one device rounds differently."""
    config, devices = _config(market), tmp_path / "devices"
    _two(tmp_path / "w", market, 5)
    finish(Process(devices, market, *FLAGS, "--config.train.steps=5", devices=2, TASK="cluster"))
    assert_bit_equal_run(devices, tmp_path / "w", config)
    assert_same_run(begun, tmp_path / "w", config, rtol=1e-4)
    _same_labels(begun, tmp_path / "w")


def test_two_processes_go_on_where_one_was(market, begun, tmp_path):
    """Within an epoch, and where one ends."""
    w = tmp_path / "w"
    finish(Process(w, market, *FLAGS, "--config.train.steps=2", TASK="cluster"))
    _two(w, market, 4)
    _two(w, market, 5)
    assert_same_run(begun, w, _config(market), rtol=1e-4)
    _same_labels(begun, w)


def test_killed_at_random_moments_ends_bit_equal(market, alone, tmp_path):
    w, said = tmp_path / "w", r"step \d+/|clusters of|embedding"
    assert_kills_change_nothing(
        lambda: Process(w, market, *FLAGS, TASK="cluster"), alone, w, _config(market), said, most=5, kills=6
    )


def test_a_collapse_is_an_exit_status_and_one_message(market, tmp_path):
    process = Process(tmp_path / "w", market, "--config.labels.dbscan.min_samples=60", TASK="cluster")
    assert process.end() == 1, process.said()
    assert "stopped: epoch 0: dbscan finds 0 clusters" in process.said().splitlines()[-1]
