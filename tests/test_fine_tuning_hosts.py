"""Fine-tuning through the real command: killed, and as two processes."""

import pytest

from cion_jax.tasks.supervised.task import Supervised
from tests import fine_tuning
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
FLAGS = ("--config.train.checkpoint_every=1", "--config.data.batch_size=8", "--config.train.epochs=16")
TASK = {"TASK": "supervised"}


@pytest.fixture(scope="module")
def market(tmp_path_factory):
    return fine_tuning.write_market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def alone(market, tmp_path_factory):
    """Workdir of one process's run."""
    workdir = tmp_path_factory.mktemp("alone") / "w"
    finish(Process(workdir, market, *FLAGS, **TASK))
    return workdir


def _config(market):
    return Supervised(fine_tuning.config(market, data__batch_size=8, train__epochs=16)).config


def test_killed_at_random_moments_ends_bit_equal(market, alone, tmp_path):
    w = tmp_path / "w"
    assert_kills_change_nothing(
        lambda: Process(w, market, *FLAGS, **TASK), alone, w, _config(market), r"step \d+/", most=6, kills=4
    )


def test_two_processes_are_one_run(market, alone, tmp_path):
    """Two devices of one process are the same bit for bit; one device rounds differently."""
    config, devices = _config(market), tmp_path / "devices"
    finish(*together(2, tmp_path / "w", market, *FLAGS, environ=lambda i: TASK))
    finish(Process(devices, market, *FLAGS, devices=2, **TASK))
    assert_bit_equal_run(devices, tmp_path / "w", config)
    assert_same_run(alone, tmp_path / "w", config, rtol=1e-4)
