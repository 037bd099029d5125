"""Products with a gallery, made where the network runs; on a large benchmark they are most of the work of scoring."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from cion_jax.reid.distances import Product

_times = jax.jit(lambda x_BD, y_GD: jnp.matmul(x_BD, y_GD.T, precision=jax.lax.Precision.HIGHEST))


def product(gallery_GD: np.ndarray) -> Product:
    """Puts the gallery [G, D] onto the first device of this process. Products are float32, without TF32 or bfloat16.

    For blocks of rows with slices of the gallery; every new shape is compiled.
    """
    held_GD = jax.device_put(gallery_GD.astype(np.float32, copy=False), jax.local_devices()[0])
    return lambda x_BD, columns: np.array(_times(x_BD, held_GD[columns]))
