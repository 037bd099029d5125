"""Whether a data set is what data_prep wrote, as far as a start may wait for the answer. Imports no JAX."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from cion_jax.common import checksums
from cion_jax.common.printable import lines
from cion_jax.data import records

_AT_ONCE = 1 << 30  # bytes of shards whose digests are taken at every start: about a second
_LISTED = 5
_FOR_PEOPLE = (records.CARD_FILE, records.REPORT_FILE)  # may be edited, nothing is trained on them


def check(folder: Path) -> None:
    """Compares a data set with its SHA256SUMS: what is not records always, records where they are a gigabyte at most.

    Larger shards are left to `python -m cion_jax.verify`, which is said on stderr: they have checksums of their own, so
    that a damaged record is noticed when it is read; only another shard in the place of one would not be. It is said,
    too, where a data set has no digests.

    Raises:
      DatasetError: names the files that are missing or not what was written.
    """
    sums = folder / checksums.SUMS
    if not sums.exists():
        if (folder / records.INDEX_FILE).exists():  # else whoever reads it says what is missing
            print(f"{folder} has no {sums.name}: whether its files are what was written is not known", file=sys.stderr)
        return
    shards = sorted(folder.glob(f"{records.DATASET_NAME}-*"))
    late = sum(path.stat().st_size for path in shards) > _AT_ONCE
    skip = (*_FOR_PEOPLE, f"{records.DATASET_NAME}-") if late else _FOR_PEOPLE
    expected = [records.INFO_FILE, records.INDEX_FILE, *(() if late else (path.name for path in shards))]
    _refuse(checksums.damage(sums, expected, skip))
    if late:
        print(
            f"the digests of {len(shards)} shards were not taken, they are large: python -m cion_jax.verify {folder}",
            file=sys.stderr,
        )


def _refuse(wrong: Sequence[str]) -> None:
    if wrong:
        more = f"\n(and {len(wrong) - _LISTED} more)" if len(wrong) > _LISTED else ""
        raise records.DatasetError("\n".join(map(lines, wrong[:_LISTED])) + more)
