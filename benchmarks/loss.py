"""Seconds and memory of the loss and its gradient: `python -m benchmarks.loss`.

B = 64 images, V = 10 views of which the teacher sees 2, 65536 prototypes, float32. *Of logits*: with respect to logits
that exist already. *Streamed*: with respect to embeddings and prototypes, which includes the head's last product. The
memory is XLA's plan: arguments, results and temporary arrays. The floor reads the logits twice (normalizer, gradient)
and writes the gradient once, at the rate at which this machine copies an array of their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.common import accelerator, header, median_seconds, table
from cion_jax.tasks.distill.head import product
from cion_jax.tasks.distill.loss import Logits, LossConfig, identity_guided_loss, make_targets, student_loss

B, U, V, F, P = 64, 2, 10, 256, 65536
KS = (2, 4, 8)
CONFIG = LossConfig()


def _of_logits(z_BVP: jax.Array, t_BUP: jax.Array, center_P: jax.Array, *, k: int) -> jax.Array:
    return identity_guided_loss(z_BVP, t_BUP, center_P, k, CONFIG)[0]


def _streamed(
    x_BVF: jax.Array,
    kernel_FP: jax.Array,
    y_BUF: jax.Array,
    prototypes_FP: jax.Array,
    center_P: jax.Array,
    *,
    k: int,
) -> jax.Array:
    of = partial(product, dtype=jnp.float32)
    student = Logits.against(x_BVF, kernel_FP, of, CONFIG.chunk)
    teacher = Logits.against(y_BUF, prototypes_FP, of, CONFIG.chunk)
    targets, _ = make_targets(teacher, center_P, CONFIG)
    return student_loss(student, teacher, targets, k, CONFIG)[0]


def _measure(
    loss: Callable[..., jax.Array], operands: Sequence[jax.Array], argnums: int | tuple[int, ...]
) -> tuple[float, float]:
    """Seconds, and GiB while it runs."""
    compiled = jax.jit(jax.value_and_grad(loss, argnums)).lower(*operands).compile()
    memory = compiled.memory_analysis()
    assert memory is not None  # every backend here plans
    total = memory.temp_size_in_bytes + memory.argument_size_in_bytes + memory.output_size_in_bytes
    return median_seconds(lambda: jax.block_until_ready(compiled(*operands))), total / 2**30


def _draw(*shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape, np.float32) / 16)


def main() -> None:
    header(f"loss and gradient: B {B}, V {V}, {P} prototypes, float32")
    logits = _draw(B, V, P), _draw(B, U, P), _draw(P)
    copy = jax.jit(lambda z: z + 1)
    floor = 1.5 * median_seconds(lambda: jax.block_until_ready(copy(logits[0])))
    print(f"device: {accelerator()}, jax {jax.__version__}; floor {floor:.2f} s of logits")
    embeddings = _draw(B, V, F), _draw(F, P), _draw(B, U, F), _draw(F, P), _draw(P)

    def row(k: int) -> tuple:
        cells = [
            *_measure(partial(_of_logits, k=k), logits, 0),
            *_measure(partial(_streamed, k=k), embeddings, (0, 1)),
        ]
        return k, *(f"{cell:.2f}" for cell in cells)

    table(["K", "of logits s", "GiB", "streamed s", "GiB"], map(row, KS))


if __name__ == "__main__":
    main()
