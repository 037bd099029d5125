"""JAX functions of images as ONNX files: their program, traced for any batch, operation by operation.

What depends on constants alone is computed here, so that a file holds a backbone's weights and little else. Choices by
platform take the plain spelling.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
from jax import export
from jax.extend import core
from onnx import helper

from cion_jax.exporting.onnx_graph import Graph, NotInOnnx, Operand
from cion_jax.exporting.onnx_ops import OPERATIONS

_OPSET, _IR_VERSION = 18, 9  # of 2023: what ONNX Runtime 1.15 and newer read
_OUTPUT = "features"
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def write(path: Path, function: Callable, size: tuple[int, int], normalized: bool = False) -> None:
    """Writes a function of images, any number of them; the file's names are `image` and `features`.

    Args:
      path: of the new file.
      function: of uint8 images [B, height, width, 3].
      size: (height, width) in pixels.
      normalized: it is one of float32 images [B, 3, height, width] instead; the input is then called `images`.

    Raises:
      NotInOnnx: an operation without a translation.
    """
    (batch,) = export.symbolic_shape("batch")
    shape, dtype = ((3, *size), jnp.float32) if normalized else ((*size, 3), jnp.uint8)
    name = "images" if normalized else "image"
    closed = jax.make_jaxpr(function)(jax.ShapeDtypeStruct((batch, *shape), dtype))
    graph = Graph(name, batch)
    image, features = closed.in_avals[0], closed.out_avals[0]
    (result,) = _translate(graph, closed.jaxpr, closed.consts, [graph.input(image.shape)])
    graph.node("Identity", graph.full(result, features.shape), output=_OUTPUT)
    inputs, outputs = [_describe(name, image)], [_describe(_OUTPUT, features)]
    proto = helper.make_graph(graph.nodes, path.stem, inputs, outputs, graph.initializers)
    opset = [helper.make_opsetid("", _OPSET)]
    onnx.save(helper.make_model(proto, opset_imports=opset, ir_version=_IR_VERSION, producer_name="cion-jax"), path)


def open_program(path: Path) -> Callable[[np.ndarray], np.ndarray]:
    """The function that a file of `write` holds, on the CPU."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (taken,) = session.get_inputs()
    return lambda images: session.run([_OUTPUT], {taken.name: images})[0]


def _translate(graph: Graph, jaxpr: Any, constants: Sequence, inputs: Sequence[Operand]) -> list[Operand]:
    values = dict(zip(jaxpr.invars, inputs, strict=True))
    values |= zip(jaxpr.constvars, map(np.asarray, constants), strict=True)

    def read(v: Any) -> Operand:
        return values[v] if isinstance(v, core.Var) else np.asarray(v.val, v.aval.dtype)

    for equation in jaxpr.eqns:
        results = _apply(graph, equation, [read(v) for v in equation.invars])
        values |= zip(equation.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _apply(graph: Graph, equation: Any, given: list[Operand]) -> Sequence[Operand]:
    name, params = equation.primitive.name, equation.params
    if name in _CALLS:
        called = params[_CALLS[name]]
        return _translate(graph, called.jaxpr, called.consts, given)
    if name == "platform_index":
        return [np.asarray(len(params["platforms"]) - 1)]  # the last one is for all platforms that are not named
    if name == "cond" and isinstance(given[0], np.ndarray):
        chosen = params["branches"][int(given[0])]
        return _translate(graph, chosen.jaxpr, chosen.consts, given[1:])
    if _is_constant(equation, given):
        results = equation.primitive.bind(*map(jnp.asarray, given), **params)
        return [*map(np.asarray, results if equation.primitive.multiple_results else [results])]
    if name not in OPERATIONS:
        raise NotInOnnx(f"no ONNX for JAX's {name}; add it to cion_jax/exporting/onnx_ops.py: {equation}")
    return OPERATIONS[name](graph, equation, given)


def _is_constant(equation: Any, given: list[Operand]) -> bool:
    known = all(isinstance(operand, np.ndarray) for operand in given)
    shapes = (v.aval.shape for v in (*equation.invars, *equation.outvars))
    return known and all(isinstance(size, int) for shape in shapes for size in shape)


def _describe(name: str, aval: Any) -> onnx.ValueInfoProto:
    shape = [size if isinstance(size, int) else str(size) for size in aval.shape]
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(aval.dtype), shape)
