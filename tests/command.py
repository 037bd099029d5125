"""The real training command with the toy among its backbones: `python -m tests.command FLAGS of cion_jax.train`.

Where READS is set, the numbers of the records that this process reads are appended to that file.
"""

import os
import runpy
import sys

from cion_jax.data.shards import ShardReader
from tests import toy


def get_config():
    """`--config=tests/command.py` is the toy's."""
    return toy.settings("")


def _spy(path):
    read = ShardReader.read

    def reading(self, numbers):
        with open(path, "a") as file:
            file.write("".join(f"{number}\n" for number in numbers))
        return read(self, numbers)

    ShardReader.read = reading


if __name__ == "__main__":
    if os.environ.get("READS"):
        _spy(os.environ["READS"])
    sys.argv[0] = "cion_jax.train"
    runpy.run_module("cion_jax.train", run_name="__main__", alter_sys=True)
