"""Parameters and multiply-adds of a backbone, from its traced program; nothing is compiled or computed."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax.extend import core

from cion_jax.models import registry


def parameters(module: nnx.Module) -> int:
    """Trained numbers, running statistics not among them; the module may be abstract."""
    return sum(leaf.size for leaf in jax.tree.leaves(registry.split(module)[1]))


def multiply_adds(module: nnx.Module, height: int = 256, width: int = 128) -> int:
    """Multiply-adds of convolutions and matrix products for one image in evaluation mode; the module may be abstract.

    Padding counts like pixels. All else (norms, activations, pooling, adding a bias) is not counted.
    """
    graphdef, params, stats = registry.split(module)
    image = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
    program = jax.make_jaxpr(lambda p, s, x: registry.merge(graphdef, p, s)(x))(params, stats, image)
    return _of_program(program.jaxpr)


def _of_program(program: core.Jaxpr) -> int:
    return sum(_of_step(step) for step in program.eqns)


def _of_step(step: core.JaxprEqn) -> int:
    operands: list[Any] = [operand.aval for operand in step.invars]
    out: Any = step.outvars[0].aval if step.outvars else None
    match step.primitive.name:
        case "dot_general":
            (contracted, _), _ = step.params["dimension_numbers"]
            return out.size * math.prod(operands[0].shape[axis] for axis in contracted)
        case "conv_general_dilated":
            outputs = step.params["dimension_numbers"].rhs_spec[0]
            return out.size * (operands[1].size // operands[1].shape[outputs])
        case "cond":  # one branch runs; those of `platform_dependent` spell the same sum, not all as products
            return max(map(_of_program, _programs(step.params["branches"])))
        case name:
            rounds = step.params["length"] if name == "scan" else 1
            return rounds * sum(map(_of_program, _programs(step.params.values())))


def _programs(values: Iterable[Any]) -> Iterable[core.Jaxpr]:
    for value in values:
        if isinstance(value, core.ClosedJaxpr):
            yield value.jaxpr
        elif isinstance(value, core.Jaxpr):
            yield value
