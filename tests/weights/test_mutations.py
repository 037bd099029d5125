"""Files of weights, damaged 300 times in each format: never a traceback, a hang, much memory, or another number where
the format has a checksum.

Every format is read in a process of its own, which a signal may end and whose memory can be measured.
"""

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import safetensors.numpy

from tests import torch_writer as writer
from tests.conftest import ROOT

MUTATIONS = 300
SECONDS, MEGABYTES = 10, 1024

# Reads every mutation of a file as `load` does; prints a row of outcomes as JSON.
PROGRAM = textwrap.dedent("""
    import json, random, sys, time
    import numpy as np
    from cion_jax.common.errors import UserError
    from cion_jax.weights import state_dict, weights_file
    source, target, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    whole, rng = open(source, "rb").read(), random.Random(0)

    def flip(b):
        b[rng.randrange(len(b))] ^= 1 << rng.randrange(8)

    def put(b):
        at = rng.randrange(len(b)); b[at : at + 8] = rng.randbytes(8)

    def number(b):
        at = rng.randrange(len(b)); b[at : at + 4] = rng.choice([b"\\xff" * 4, b"\\0" * 4, b"\\xff\\xff\\xff\\x7f"])

    def cut(b):
        del b[rng.randrange(len(b)) :]

    def drop(b):
        at = rng.randrange(len(b)); del b[at : at + rng.randrange(1, 64)]

    def double(b):
        at = rng.randrange(len(b)); b[at:at] = b[at : at + rng.randrange(1, 64)]

    def near_the_head(b):
        at = rng.randrange(min(len(b), 600)); b[at] = rng.randrange(256)

    kinds = [flip, flip, put, number, cut, drop, double, near_the_head, near_the_head, near_the_head]

    def everything(path):
        dicts = state_dict.tensor_dicts(weights_file.open_weights(path).saved)
        return {(*where, name): t.array().copy() for where, tensors in dicts for name, t in tensors.items()}

    right, done, slowest, escaped = everything(source), {"refused": 0, "same": 0, "other": 0}, 0.0, []
    for i in range(count):
        data = bytearray(whole)
        kinds[i % len(kinds)](data)
        with open(target, "wb") as file:
            file.write(data)
        began = time.monotonic()
        try:
            found = everything(target)
            same = all(name in right and np.array_equal(a, right[name]) for name, a in found.items())
            done["same" if same else "other"] += 1
        except UserError as error:
            done["refused"] += 1
            if not str(error).isprintable() or target not in str(error):
                escaped.append(f"{i}: {error}")
        except BaseException as error:
            escaped.append(f"{i}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.monotonic() - began)
    (peak,) = (line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
    memory = int(peak) / 1024
    print(json.dumps(done | {"slowest": slowest, "memory": memory, "escaped": escaped}))
""")


def save_safetensors(path, named):
    safetensors.numpy.save_file(named, path)


def save_zip(path, named):
    writer.save(path, {"state_dict": writer.state_dict(named), "epoch": 3, "args": writer.namespace(lr=0.1)})


def save_legacy(path, named):
    writer.save_legacy(path, {"state_dict": writer.state_dict(named), "epoch": 3, "args": writer.namespace(lr=0.1)})


@pytest.mark.slow
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_safetensors])
def test_mutations(tmp_path, save, capsys):
    rng = np.random.default_rng(0)
    named = {f"layer{i}.weight": rng.standard_normal((8, 4 + i)).astype(np.float32) for i in range(6)}
    source, target = (tmp_path / f"{stem}.{'safetensors' if save is save_safetensors else 'pth'}" for stem in "ab")
    save(source, named)
    command = [sys.executable, "-c", PROGRAM, str(source), str(target), str(MUTATIONS)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60 + SECONDS * MUTATIONS)
    assert done.returncode == 0, done.stderr
    row = json.loads(done.stdout)
    with capsys.disabled():
        print(
            f"\n{save.__name__}: {row['refused']} refused, {row['same']} read with the same numbers, {row['other']} "
            f"with others; slowest {row['slowest']:.3f} s, {row['memory']:.0f} MB"
        )
    assert not row["escaped"]
    assert row["slowest"] < SECONDS
    assert row["memory"] < MEGABYTES
    if save is save_zip:
        assert row["other"] == 0
