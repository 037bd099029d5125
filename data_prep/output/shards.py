"""Writes identity shards: a TFDS folder with ArrayRecord files, readable without this project.

Nothing that makes a folder a dataset appears before everything it names is complete: shards get their final
names when they are closed, and ``dataset_info.json`` is written last. Imports no TensorFlow.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet
from array_record.python.array_record_module import ArrayRecordWriter
from google.protobuf import json_format
from tensorflow_datasets import features as tfds_features
from tensorflow_datasets.core.proto import dataset_info_pb2
from tensorflow_datasets.proto import tf_example_pb2, tf_feature_pb2

from cion_jax.common.files import finished
from cion_jax.data import records
from data_prep.types import Image

RECORDS_PER_SHARD = 10_000
FORMAT_VERSION = "1.0.0"
_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"


def write(
    folder: Path,
    images: Sequence[Image],
    identities: Sequence[int] | np.ndarray,
    jpeg_of: Callable[[Image], bytes],
    provenance: pa.Table,
    records_per_shard: int = RECORDS_PER_SHARD,
) -> records.Index:
    """Writes one dataset; the same arguments give the same bytes.

    Args:
      folder: made where it does not exist. What an interrupted write left there is removed first.
      images: what was kept, in any order; keys are unique.
      identities: [N] the identity of each of `images`, numbered 0 .. M-1 without gaps.
      jpeg_of: JPEG bytes of an image, stored untouched; called once per image, identity by identity.
      provenance: one row per *input* image, stored as ``provenance.parquet``.
      records_per_shard: upper limit.

    Returns:
      The index, in record order.

    Raises:
      FileExistsError: `folder` holds a complete dataset already.
      ValueError: no image, a key that occurs twice, identities with a gap, or something that is not a JPEG.
    """
    if (folder / records.INFO_FILE).exists():
        raise FileExistsError(f"{folder} already holds a dataset; give another --output or delete it")
    rows = _sorted(images, identities)
    index = _index(rows)
    folder.mkdir(parents=True, exist_ok=True)
    for stale in folder.glob(f"*{records.DATASET_NAME}-*"):
        stale.unlink()
    chunks = _chunks(rows, records_per_shard)
    sizes = [_write_shard(path, chunk, jpeg_of) for path, chunk in _shards(folder, chunks)]
    index.save(folder, _confidence(provenance, index.identities))
    with finished(folder / records.PROVENANCE_FILE) as part:
        pa.parquet.write_table(provenance, part, write_page_checksum=True)
    features().save_config(folder)
    with finished(folder / records.INFO_FILE) as part:
        part.write_text(_dataset_info([len(chunk) for chunk in chunks], sum(sizes)))
    return index


@contextlib.contextmanager
def array_records(path: Path) -> Iterator[ArrayRecordWriter]:
    """Yields a writer of one record per chunk: random access decodes nothing but what it asks for.

    Raises:
      OSError: the file cannot be written, as on a full disk (the library itself raises RuntimeError).
    """
    try:
        with contextlib.closing(ArrayRecordWriter(str(path), "group_size:1")) as writer:
            yield writer
    except RuntimeError as error:
        raise OSError(str(error)) from error


def encode_example(image: Image, identity: int, jpeg: bytes) -> bytes:
    """One record: a serialized tf.train.Example with the fields of `cion_jax.data.records`.

    Raises:
      ValueError: `jpeg` does not begin like a JPEG file.
    """
    if jpeg[:2] != b"\xff\xd8":
        raise ValueError(
            f"{image.key}: expected the bytes of a JPEG file, got {jpeg[:4]!r}...; encode the crop as JPEG"
        )
    fields: dict[str, bytes | str | int] = {
        records.IMAGE: jpeg,
        records.KEY: image.key,
        records.IDENTITY: identity,
        records.VIDEO: image.video,
        records.TRACKLET: image.tracklet,
        records.FRAME: image.frame,
    }
    feature = {name: _feature(value) for name, value in fields.items()}
    example = tf_example_pb2.Example(features=tf_feature_pb2.Features(feature=feature))
    return example.SerializeToString(deterministic=True)


def features() -> tfds_features.FeaturesDict:
    """What ``features.json`` says of a record."""
    return tfds_features.FeaturesDict(
        {
            records.IMAGE: tfds_features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            records.KEY: tfds_features.Text(),
            records.IDENTITY: tfds_features.Scalar(np.int64),
            records.VIDEO: tfds_features.Text(),
            records.TRACKLET: tfds_features.Text(),
            records.FRAME: tfds_features.Scalar(np.int64),
        }
    )


def _feature(value: bytes | str | int) -> tf_feature_pb2.Feature:
    if isinstance(value, int | np.integer):
        return tf_feature_pb2.Feature(int64_list=tf_feature_pb2.Int64List(value=[value]))
    content = value.encode() if isinstance(value, str) else value
    return tf_feature_pb2.Feature(bytes_list=tf_feature_pb2.BytesList(value=[content]))


Row = tuple[Image, int]


def _sorted(images: Sequence[Image], identities: Sequence[int] | np.ndarray) -> list[Row]:
    if not len(images):
        raise ValueError(
            "no image is left to write, expected at least one; see the counts per level for where they went"
        )
    rows = [(image, int(identity)) for image, identity in zip(images, identities, strict=True)]
    rows.sort(key=lambda row: (row[1], row[0].video, row[0].tracklet, row[0].frame, row[0].key))
    keys: set[str] = set()
    for image, _ in rows:
        if image.key in keys:
            raise ValueError(f"the key {image.key!r} occurs twice; keys must be unique in a dataset")
        keys.add(image.key)
    return rows


def _index(rows: Sequence[Row]) -> records.Index:
    numbers = {name: i for i, name in enumerate(sorted({(image.video, image.tracklet) for image, _ in rows}))}
    return records.Index(
        identity=np.array([identity for _, identity in rows], np.int64),
        tracklet=np.array([numbers[image.video, image.tracklet] for image, _ in rows], np.int64),
    )


def _confidence(provenance: pa.Table, identities: int) -> np.ndarray | None:
    """[identities] as the provenance has it of their images; None where it has none."""
    if "confidence" not in provenance.column_names or provenance["confidence"].null_count == len(provenance):
        return None
    known = provenance.filter(pa.compute.is_valid(provenance["record"]))
    found = np.full(identities, np.nan)
    found[known["identity"].to_numpy()] = known["confidence"].fill_null(np.nan).to_numpy()
    return found


def _chunks(rows: Sequence[Row], most: int) -> list[Sequence[Row]]:
    """Cuts into the fewest, nearly equal chunks of at most `most` rows."""
    count = -(-len(rows) // most)
    edges = [len(rows) * i // count for i in range(count + 1)]
    return [rows[a:b] for a, b in itertools.pairwise(edges)]


def _shards(folder: Path, chunks: Sequence[Sequence[Row]]) -> Iterator[tuple[Path, Sequence[Row]]]:
    for i, chunk in enumerate(chunks):
        name = f"{records.DATASET_NAME}-{records.SPLIT}.array_record-{i:05d}-of-{len(chunks):05d}"
        yield folder / name, chunk


def _write_shard(path: Path, rows: Sequence[Row], jpeg_of: Callable[[Image], bytes]) -> int:
    """Writes one file and returns the bytes of its records."""
    size = 0
    with finished(path) as part, array_records(part) as writer:
        for image, identity in rows:
            record = encode_example(image, identity, jpeg_of(image))
            writer.write(record)
            size += len(record)
    return size


def _dataset_info(shard_lengths: Sequence[int], num_bytes: int) -> str:
    split = dataset_info_pb2.SplitInfo(
        name=records.SPLIT, shard_lengths=shard_lengths, num_bytes=num_bytes, filepath_template=_FILES
    )
    info = dataset_info_pb2.DatasetInfo(
        name=records.DATASET_NAME,
        version=FORMAT_VERSION,
        description="Person crops grouped by identity across videos, for identity-guided pre-training.",
        file_format="array_record",
        splits=[split],
    )
    return json_format.MessageToJson(info, sort_keys=True) + "\n"
