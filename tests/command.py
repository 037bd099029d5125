"""The real training command with the toy among its backbones: `python -m tests.command FLAGS of cion_jax.train`.

The environment may ask for more: READS names a file for the numbers of the records that are read, FAIL_AT a step at
which reading fails, SEED the run's seed, TASK is "cluster" or "supervised" for a run of that. TensorBoard's writer is
left out: it imports TensorFlow, which takes longer than these runs.
"""

import os
import runpy
import sys
import types

from cion_jax.data.shards import ShardError, ShardReader
from tests import clusters, fine_tuning, toy

TASKS = {"cluster": clusters, "supervised": fine_tuning}


def get_config():
    """`--config=tests/command.py` is the toy's."""
    of = TASKS.get(os.environ.get("TASK", ""), toy)
    return of.settings("", seed=int(os.environ.get("SEED", 0)))


class _Nowhere:
    def __init__(self, folder):
        pass

    def write_scalars(self, step, scalars):
        pass

    def close(self):
        pass


def _read(self, numbers, read=ShardReader.read):
    if os.environ.get("READS"):
        with open(os.environ["READS"], "a") as file:
            file.write("".join(f"{number}\n" for number in numbers))
    _calls.append(1)
    if os.environ.get("FAIL_AT") and len(_calls) > 4 * int(os.environ["FAIL_AT"]):
        raise ShardError("made to fail")
    return read(self, numbers)


_calls: list[int] = []


if __name__ == "__main__":
    ShardReader.read = _read
    sys.modules["clu.metric_writers"] = types.ModuleType("clu.metric_writers")
    sys.modules["clu.metric_writers"].SummaryWriter = _Nowhere
    sys.argv[0] = "cion_jax.train"
    runpy.run_module("cion_jax.train", run_name="__main__", alter_sys=True)
