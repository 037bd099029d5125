"""Reads something that was kept, damaged in many ways, and prints what became of it as a row of JSON.

`python -m tests.mutations KIND FOLDER COUNT`; every kind is read as the product reads it, in a process of its own,
which a signal may end and whose memory can be measured.
"""

import contextlib
import json
import random
import resource
import shutil
import signal
import sys
import time
from pathlib import Path

import cv2
import numpy as np

from cion_jax.common import checksums
from cion_jax.common.errors import UserError
from cion_jax.data import records

SECONDS = 10  # that one may take


def flip(data, rng):
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def put(data, rng):
    at = rng.randrange(len(data))
    data[at : at + 8] = rng.randbytes(8)


def number(data, rng):
    at = rng.randrange(len(data))
    data[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"9" * 4, b"-1e9", b"null", b"[[[["])


def cut(data, rng):
    del data[rng.randrange(len(data)) :]


def drop(data, rng):
    at = rng.randrange(len(data))
    del data[at : at + rng.randrange(1, 64)]


def double(data, rng):
    at = rng.randrange(len(data))
    data[at:at] = data[at : at + rng.randrange(1, 64)]


def head(data, rng):
    data[rng.randrange(min(len(data), 300))] = rng.randrange(256)


def digits(data, rng):
    at = rng.randrange(len(data))
    data[at:at] = b"9" * rng.choice([20, 400, 6000])


CHANGES = (flip, flip, put, number, cut, drop, double, head, head, digits)


class Kind:
    """What is damaged (`files` below the folder), and how it is read (`read`: comparable, or UserError)."""

    checksum = True  # whether another content can be told


class Data(Kind):
    """Identity shards."""

    def __init__(self, folder):
        from tests import toy

        self.folder = folder / "data"
        toy.write_shards(self.folder)

    def read(self):
        from cion_jax.data.shards import ShardReader

        reader = ShardReader(self.folder)
        found = reader.read(range(len(reader)))
        if None in found:
            raise UserError("records are damaged, and counted")
        return reader.index.digest(), found


class Shards(Data):
    """Their records."""

    def files(self):
        return sorted(self.folder.glob("*array_record*"))


class Index(Data):
    """Which record is of whom."""

    def files(self):
        return [self.folder / records.INDEX_FILE]


class Info(Data):
    """How many records there are."""

    def files(self):
        return [self.folder / "dataset_info.json"]


class Whole(Data):
    """Any file of a data set, by the digests beside it."""

    def __init__(self, folder):
        super().__init__(folder)
        for name in (records.PROVENANCE_FILE, records.METRICS_FILE, records.CARD_FILE, records.REJECTED_FILE):
            (self.folder / name).write_text(name * 20)
        checksums.write(self.folder / checksums.SUMS, {path.name: path for path in sorted(self.folder.iterdir())})

    def files(self):
        return sorted(self.folder.iterdir())

    def read(self):
        sums = self.folder / checksums.SUMS
        damage = checksums.damage(sums, [path.name for path in self.files() if path != sums])
        if damage:
            raise UserError(damage[0])
        return checksums.read(sums), [path.read_bytes() for path in self.files() if path != sums]


class Checkpoint(Kind):
    """The newest of two checkpoints, all of its files."""

    def __init__(self, folder):
        import jax

        from cion_jax.training.checkpoint import Checkpointer, on_one_device
        from cion_jax.training.loop import record
        from cion_jax.training.step import init_state
        from tests import toy

        self.folder, self.task, self.open = folder / "run", toy.task("data"), Checkpointer
        state = init_state(self.task)
        with Checkpointer(self.folder) as checkpointer:
            for step in (1, 2):
                checkpointer.save(step, state, self.task.served, record(self.task, step, "x"))
        self.like = on_one_device(jax.eval_shape(lambda: init_state(self.task)))

    def files(self):
        return sorted(p for p in (self.folder / "checkpoints" / "2").rglob("*") if p.is_file() and p.stat().st_size)

    def read(self):
        import jax

        from cion_jax.weights.load import task_of

        with self.open(self.folder, read_only=True) as checkpointer:
            step = checkpointer.latest()
            run = checkpointer.run(step)
            task_of(run)
            state = checkpointer.restore(run, self.like, self.task.served)
        leaves = [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(jax.device_get(state))]
        return step, run["config"], run["position"], run["preprocessing"], leaves


class Provenance(Kind):
    """Where every image comes from."""

    def __init__(self, folder):
        import pyarrow.parquet as pq

        from tests.data_prep import small_run

        self.folder = folder / "data"
        self.folder.mkdir()
        pq.write_table(small_run.table(), self.folder / records.PROVENANCE_FILE, write_page_checksum=True)
        metrics = {"levels": [], "thresholds": {"a": 1.0}, "selection": {"images": 1, "identities": 1}, "rejected": {}}
        (self.folder / records.METRICS_FILE).write_text(json.dumps(metrics, indent=1))

    def files(self):
        return [self.folder / records.PROVENANCE_FILE]

    def read(self):
        from data_prep.output.dataset import Dataset

        return Dataset(self.folder).provenance.to_pylist()


class Metrics(Provenance):
    """What was measured."""

    checksum = False

    def files(self):
        return [self.folder / records.METRICS_FILE]

    def read(self):
        from data_prep.output.dataset import Dataset

        return repr(Dataset(self.folder)), Dataset(self.folder).metrics


class Source(Kind):
    """Something to read for data_prep."""

    checksum = False
    name = ""

    def read(self):
        from data_prep import sources

        source = sources.open(self.name, self.root)
        found = []
        for video in source.videos():
            images, _ = source.read(video)
            source.examine(video)
            found += [(image.key, image.frame, image.box, image.truth) for image in images]
            for _ in source.crops(images[:3]):
                pass
        return found


class Mot(Source):
    """A text of tracks."""

    name = "mot"

    def __init__(self, folder):
        self.root = folder / "mot"
        (self.root / "seq" / "img1").mkdir(parents=True)
        for frame in range(1, 5):
            picture = np.full((120, 160, 3), 100, np.uint8)
            cv2.imwrite(str(self.root / "seq" / "img1" / f"{frame:06d}.jpg"), picture)
        rows = [f"{frame},{track},{10 + 50 * track},10,30,60,1" for track in range(2) for frame in range(1, 5)]
        (self.root / "seq" / "tracks.txt").write_text("\n".join(rows) + "\n")

    def files(self):
        return [self.root / "seq" / "tracks.txt"]


class Annotations(Source):
    """A list of pictures and identities."""

    name = "annotations"

    def __init__(self, folder):
        self.root = folder / "list"
        self.root.mkdir()
        for i in range(6):
            cv2.imwrite(str(self.root / f"{i}.jpg"), np.full((48, 24, 3), 20 * i, np.uint8))
        entries = [{"file_path": f"{i}.jpg", "id": i // 2} for i in range(6)]
        (self.root / "list.json").write_text(json.dumps(entries, indent=1))

    def files(self):
        return [self.root / "list.json"]


class Lines(Annotations):
    """The same as JSON lines."""

    def __init__(self, folder):
        super().__init__(folder)
        entries = json.loads((self.root / "list.json").read_text())
        (self.root / "list.json").unlink()
        (self.root / "list.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))

    def files(self):
        return [self.root / "list.jsonl"]


class Table(Annotations):
    """The same as a table."""

    def __init__(self, folder):
        super().__init__(folder)
        (self.root / "list.json").unlink()
        (self.root / "list.csv").write_text("file_path,id\n" + "".join(f"{i}.jpg,{i // 2}\n" for i in range(6)))

    def files(self):
        return [self.root / "list.csv"]


KINDS = {
    kind.__name__.lower(): kind
    for kind in (Whole, Checkpoint, Shards, Index, Info, Provenance, Metrics, Mot, Annotations, Lines, Table)
}


def late(*_):
    """What the alarm does."""
    raise TimeoutError(f"it takes more than {SECONDS} s")


def outcome(kind, right, file, folder):
    """(what became of it, why that is wrong or ""); a message has to say which file it is about."""
    signal.alarm(SECONDS)
    try:
        found = kind.read()
    except UserError as error:
        said = str(error)
        return "refused", "" if str(folder) in said or "are damaged" in said else f"no file is named: {said}"
    except BaseException as error:
        return "escaped", f"{file.name}: {type(error).__name__}: {error}"
    finally:
        signal.alarm(0)
    if found == right:
        return "same", ""
    return "other", f"{file.name}: another content is taken" if kind.checksum else ""


def study(name, folder, count):
    """The row of one kind."""
    signal.signal(signal.SIGALRM, late)
    kind, rng = KINDS[name](folder), random.Random(0)
    right, done, slowest, wrong = kind.read(), {"refused": 0, "same": 0, "other": 0, "escaped": 0}, 0.0, []
    files = kind.files()
    for i in range(count):
        file = files[i % len(files)]
        whole = file.read_bytes()
        data = bytearray(whole)
        CHANGES[i // len(files) % len(CHANGES)](data, rng)
        file.write_bytes(data)
        began = time.monotonic()
        what, why = outcome(kind, right, file, folder)
        slowest = max(slowest, time.monotonic() - began)
        done[what] += 1
        wrong += [f"{i} {why}"] if why else []
        file.write_bytes(whole)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return done | {"slowest": slowest, "memory": memory, "wrong": wrong[:10]}


if __name__ == "__main__":
    with contextlib.redirect_stdout(sys.stderr):
        row = study(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
    shutil.rmtree(sys.argv[2], ignore_errors=True)
    print(json.dumps(row))
