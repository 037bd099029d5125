"""Images per second turned into views on the device: `python -m benchmarks.views`.

2 global views of 256x128 and 8 local ones of 128x64 from 256x128 canvases, with the paper's augmentation.
"""

from __future__ import annotations

import jax
import numpy as np

from benchmarks.common import accelerator, header, median_seconds, table
from cion_jax.data.views import ViewsConfig, make_views

BATCHES = (32, 96)


def _row(batch: int) -> tuple:
    image = np.random.default_rng(0).integers(0, 256, (batch, 256, 128, 3), np.uint8)
    arguments = jax.device_put((jax.random.key(0), image, np.full((batch, 2), (256, 128), np.int32)))
    views = jax.jit(make_views, static_argnames="config").lower(*arguments, config=ViewsConfig()).compile()
    seconds = median_seconds(lambda: jax.block_until_ready(views(*arguments)))
    planned = views.memory_analysis()
    assert planned is not None  # every backend here plans
    memory = planned.temp_size_in_bytes / 2**20
    return batch, f"{batch / seconds:.0f}", f"{seconds * 1e3:.1f}", f"{memory / batch:.1f}"


def main() -> None:
    header("views")
    print(f"device: {accelerator()}, jax {jax.__version__}")
    columns = ["batch", "images/s", "ms per batch", "temporary MiB per image"]
    table(columns, [_row(batch) for batch in BATCHES])


if __name__ == "__main__":
    main()
