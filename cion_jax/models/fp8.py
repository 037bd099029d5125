"""Products of 8-bit floating-point numbers (e4m3: 4 bits of exponent, 3 of mantissa, at most 448).

Every row of the left matrix and every column of the right one has a factor of its own, so that its greatest number is
448: an outlier costs its own row bits, not all others. What is quantized is the forward product and the gradient of its
input. The gradient of the kernel, which sums over thousands of rows of all sizes, stays in the type of the network.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from cion_jax.models import ops
from cion_jax.models.layers import Linear

E4M3 = jnp.float8_e4m3fn
LARGEST = 448.0


def quantized(x_MN: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    """(x in e4m3, factors): what the first times the second is within 1/16 of a number of x, or within 2^-10 of the
    factor where that is more; along `axis` there is one factor."""
    largest = jnp.abs(ops.wide(x_MN)).max(axis, keepdims=True)
    factor = jnp.where(largest > 0, largest / LARGEST, 1)
    return (ops.wide(x_MN) / factor).astype(E4M3), factor


def rounded_product(x_RC: jax.Array, kernel_CM: jax.Array) -> jax.Array:
    """[R, C] and [C, M] -> [R, M] in the type of x: the product of both quantized, summed in float32."""
    (x, of_rows_R1), (kernel, of_columns_1M) = quantized(x_RC, 1), quantized(kernel_CM, 0)
    sums = jnp.matmul(x, kernel, preferred_element_type=jnp.float32)
    return (sums * of_rows_R1 * of_columns_1M).astype(x_RC.dtype)


@jax.custom_vjp
def product(x_RC: jax.Array, kernel_CM: jax.Array) -> jax.Array:
    """`rounded_product` whose gradient with respect to x is one as well; that of the kernel is of unrounded numbers."""
    return rounded_product(x_RC, kernel_CM)


def _backward(kept: tuple[jax.Array, jax.Array], g_RM: jax.Array) -> tuple[jax.Array, jax.Array]:
    x_RC, kernel_CM = kept
    of_kernel = jnp.matmul(x_RC.T, g_RM, preferred_element_type=jnp.float32)
    return rounded_product(g_RM, kernel_CM.T), of_kernel.astype(kernel_CM.dtype)


product.defvjp(lambda x, kernel: (product(x, kernel), (x, kernel)), _backward)


class Fp8Linear(Linear):
    """`Linear` by `product`."""

    def __call__(self, x: jax.Array) -> jax.Array:  # type: ignore[override]
        """[..., in] -> [..., out]."""
        kernel = self.kernel[...].astype(self.dtype)
        y = ops.on_rows(lambda x: product(x, kernel), x.astype(self.dtype))
        return y if self.bias is None else y + self.bias[...].astype(self.dtype)
