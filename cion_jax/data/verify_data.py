"""A data set from end to end: counts, checksums, every picture, index and provenance. Imports no JAX."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import simplejpeg

from cion_jax.common import checksums, images
from cion_jax.common.errors import UserError
from cion_jax.common.files import read_regular
from cion_jax.common.printable import printable
from cion_jax.common.progress import progress
from cion_jax.data import records
from cion_jax.data.shards import ShardError, ShardReader

_CHUNK = 256  # records that a thread looks at in one go


class _Seen(NamedTuple):
    """What a whole record says of itself."""

    number: int
    key: str
    tracklet: tuple[str, str]


def verify_data(folder: Path) -> tuple[str, list[str]]:
    """(what was looked at, what is damaged: a line each)."""
    damage = [*_small_files(folder), *checksums.damage(folder / checksums.SUMS, _written(folder))]
    try:
        reader = ShardReader(folder)
    except UserError as error:
        return "its records were not looked at", [*damage, str(error)]
    seen: dict[int, _Seen] = {}
    for found, wrong in _every_record(reader):
        seen |= {one.number: one for one in found}
        damage += wrong
    damage += _index(reader.index, seen)
    damage += _provenance(folder, reader.index, seen)
    index, undigested = reader.index, checksums.told(folder / checksums.SUMS, _written(folder))
    return f"{len(reader):,} records of {index.identities:,} identities, every picture decoded{undigested}", damage


def _written(folder: Path) -> list[str]:
    """Names of what data_prep wrote."""
    shards = sorted(path.name for path in folder.glob(f"{records.DATASET_NAME}-*"))
    return [name for name in records.FILES if (folder / name).exists()] + shards


def _small_files(folder: Path) -> Iterator[str]:
    for name in (records.FEATURES_FILE, records.METRICS_FILE):
        path = folder / name
        if not path.exists() and name == records.METRICS_FILE:
            yield f"{path} is missing: data_prep writes it last; give its command again"
            continue
        try:
            with records.damage(path):
                json.loads(read_regular(path))
        except UserError as error:
            yield str(error)


def _every_record(reader: ShardReader) -> Iterator[tuple[list[_Seen], list[str]]]:
    """What is seen and what is wrong, a chunk of records at a time; threads decode."""
    chunks = [range(a, min(a + _CHUNK, len(reader))) for a in range(0, len(reader), _CHUNK)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(lambda numbers: _chunk(reader, numbers), chunks)
        yield from progress(done, "records, by 256", total=len(chunks))


def _chunk(reader: ShardReader, numbers: Sequence[int]) -> tuple[list[_Seen], list[str]]:
    seen, wrong = [], []
    for number, fields in zip(numbers, _read(reader, numbers), strict=True):
        why = fields if isinstance(fields, str) else _picture(fields[records.IMAGE])
        if why:
            wrong.append(f"{reader.where(number)}: {why}")
        if not isinstance(fields, str):
            tracklet = fields[records.VIDEO], fields[records.TRACKLET]
            seen.append(_Seen(number, fields[records.KEY], tracklet))
    return seen, wrong


def _read(reader: ShardReader, numbers: Sequence[int]) -> list[dict[str, Any] | str]:
    """Records, or why one is none."""
    try:
        found = reader.read(numbers)
    except ShardError as error:
        if len(numbers) == 1:
            return [str(error)]
        return [one for number in numbers for one in _read(reader, [number])]
    return ["its bytes are not what was written" if fields is None else fields for fields in found]


def _picture(data: bytes) -> str:
    """Why a picture cannot be decoded; empty where it can be."""
    try:
        images.check_size(data)
        simplejpeg.decode_jpeg(data)
    except ValueError as error:
        return printable(error)
    return ""


def _index(index: records.Index, seen: dict[int, _Seen]) -> Iterator[str]:
    """Two tracklets under one number, or one under two; keys that occur twice."""
    number_of: dict[tuple[str, str], int] = {}
    name_of: dict[int, tuple[str, str]] = {}
    first: dict[str, int] = {}
    for one in seen.values():
        number = int(index.tracklet[one.number])
        if number_of.setdefault(one.tracklet, number) != number or name_of.setdefault(number, one.tracklet) != (
            one.tracklet
        ):
            yield f"{records.INDEX_FILE}: record {one.number} is of another tracklet than the index says"
        if first.setdefault(one.key, one.number) != one.number:
            yield f"records {first[one.key]} and {one.number} are both {printable(one.key)}"


def _provenance(folder: Path, index: records.Index, seen: dict[int, _Seen]) -> Iterator[str]:
    import pyarrow.parquet as pq  # only now: nothing else of this package needs it

    path, columns = folder / records.PROVENANCE_FILE, ["key", "identity", "record"]
    try:
        with records.damage(path):
            read_regular(path)
            rows = pq.read_table(path, columns=columns, page_checksum_verification=True).to_pydict()
            if lacking := [name for name in columns if name not in rows]:
                raise ValueError(f"it has no column {lacking[0]}")
            pq.read_table(path, page_checksum_verification=True)
    except UserError as error:
        yield str(error)
        return
    told = dict(zip(rows["record"], zip(rows["key"], rows["identity"], strict=True), strict=True))
    told.pop(None, None)
    if told.keys() != set(range(len(index.identity))):
        yield f"{path} tells of {len(told):,} records, the data set has {len(index.identity):,}"
        return
    for number, one in seen.items():
        if told[number] != (one.key, int(index.identity[number])):
            yield f"{path}: record {number} is {printable(one.key)}, it tells of {printable(told[number][0])}"
