"""Features of a data set's images by the network that is served, on all devices of a run.

Every process decodes what its devices take; all get all features, bit for bit the same.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax import models
from cion_jax.common.progress import progress
from cion_jax.data import crops, records
from cion_jax.data.crops import CropSpec
from cion_jax.data.stream import Reader
from cion_jax.distributed import multihost, sharding
from cion_jax.distributed.sharding import BATCH, Rule
from cion_jax.models.layers import l2_normalize

_AHEAD = 2  # batches that are decoded while the devices work on another


def embed(
    network: tuple[Any, Any, Any],
    reader: Reader,
    spec: CropSpec,
    mesh: Mesh,
    rules: Sequence[Rule],
    *,
    numbers: np.ndarray,
    batch_size: int,
    canvas: tuple[int, int],
    threads: int,
    what: str,
) -> np.ndarray:
    """Embeds images.

    Args:
      network: (graphdef, params, stats) of the served network, its arrays on the mesh.
      reader: of a data set.
      spec: size, mean and std of its input; images are resized as in training.
      mesh: of the run.
      rules: of the task, for the parameters.
      numbers: [N] int64 of the images.
      batch_size: images at a time, a multiple of the devices that share a batch.
      canvas: (height, width) that images are decoded onto.
      threads: that read and decode.
      what: beginning of the progress line.

    Returns:
      [N, D] float32 of unit length; zeros for an image that cannot be read.
    """
    graphdef, params, stats = network
    count, found = len(numbers), []
    rows = multihost.rows(BATCH, mesh, batch_size)
    own = np.concatenate([np.arange(*ends) for ends in rows])
    starts = range(0, count, batch_size)
    dealt = (numbers[(start + own) % count] for start in starts)  # beyond the last image the first ones come again
    decoded = _decoded(reader, dealt, canvas, max(threads, 1))
    batches = zip(starts, decoded, strict=True)
    for start, batch in progress(batches, what, len(starts)) if jax.process_index() == 0 else batches:
        on_devices = sharding.put_batch(batch, mesh, ("image", "size"))
        features = _forward(params, stats, on_devices, graphdef=graphdef, spec=spec, mesh=mesh, rules=tuple(rules))
        found.append(np.asarray(features)[: count - start])
    return np.concatenate(found)


def _decoded(
    reader: Reader, dealt: Iterable[np.ndarray], canvas: tuple[int, int], threads: int
) -> Iterator[dict[str, np.ndarray]]:
    """The images that this process decodes of every batch, in order."""
    with ThreadPoolExecutor(threads) as pool:
        waiting: deque[list[Future]] = deque()
        for numbers in itertools.chain(dealt, [None] * _AHEAD):
            if numbers is not None:
                waiting.append([pool.submit(_read, reader, int(number), canvas) for number in numbers])
            if waiting and (numbers is None or len(waiting) > _AHEAD):
                images, sizes = zip(*(one.result() for one in waiting.popleft()), strict=True)
                yield {"image": np.stack(images), "size": np.stack(sizes)}


def _read(reader: Reader, number: int, canvas: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """An image on its canvas and its size, 0 where it cannot be read."""
    image_HWC, size = np.zeros((*canvas, 3), np.uint8), (0, 0)
    fields = reader.read([number])[0]
    if fields is not None:
        with contextlib.suppress(ValueError):
            size = reader.decode(fields[records.IMAGE], image_HWC)
    return image_HWC, np.array(size, np.int32)


@partial(jax.jit, static_argnames=("graphdef", "spec", "mesh", "rules"))
def _forward(
    params: Any,
    stats: Any,
    batch: dict[str, jax.Array],
    *,
    graphdef: Any,
    spec: CropSpec,
    mesh: Mesh,
    rules: tuple[Rule, ...],
) -> jax.Array:
    """[B, D] of one batch, whole on every device."""
    readable_B = batch["size"][:, :1] > 0
    size_B2 = jnp.where(readable_B, batch["size"], 1)
    straight_B = jnp.zeros(len(size_B2), bool)
    x_BHWC = crops.normalize(crops.resize(batch["image"], size_B2, straight_B, spec), spec)
    module = models.merge(graphdef, sharding.gather(params, mesh, rules), stats)
    features = jnp.where(readable_B, l2_normalize(module(x_BHWC, train=False)), 0)
    return jax.lax.with_sharding_constraint(features, NamedSharding(mesh, P()))
