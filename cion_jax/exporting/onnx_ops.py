"""JAX's operations in ONNX: for each of them a function (graph, equation, operands) -> results.

Only what the backbones' evaluation holds. Operations by element leave repeated axes at 1 (see `onnx_graph.Tensor`);
all others get their operands in full.
"""

from __future__ import annotations

import functools
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import helper

from cion_jax.exporting.onnx_graph import Graph, NotInOnnx, Operand, Tensor

_NCHW, _NHWC = (0, 3, 1, 2), (0, 2, 3, 1)


def _same(graph: Graph, equation: Any, given: list[Operand]) -> list[Operand]:
    return given


def _by_element(*kinds: str) -> Callable:
    """Nodes one after another, the first of which takes all operands."""

    def apply(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
        name = functools.reduce(
            lambda n, kind: graph.node(kind, n), kinds[1:], graph.node(kinds[0], *_names(graph, given))
        )
        return [Tensor(name, _broadcast(given))]

    return apply


def _names(graph: Graph, operands: list[Operand]) -> list[str]:
    return [graph.name(operand) for operand in operands]


def _broadcast(operands: Sequence[Operand]) -> tuple:
    """Shape of an operation by element; scalars have no axes."""
    shapes = [tuple(operand.shape) for operand in operands if operand.shape]
    return tuple(next((size for size in sizes if size != 1), 1) for sizes in zip(*shapes, strict=True))


def _square(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    return _by_element("Mul")(graph, equation, given * 2)


def _power(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    exponent = np.asarray(equation.params["y"], equation.invars[0].aval.dtype)
    return _by_element("Pow")(graph, equation, [*given, exponent])


def _select(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    condition, if_false, if_true = given
    return _by_element("Where")(graph, equation, [condition, if_true, if_false])


def _clamp(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    low, x, high = given
    return _by_element("Min")(graph, equation, [*_by_element("Max")(graph, equation, [x, low]), high])


def _cast(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    to = helper.np_dtype_to_tensor_dtype(np.dtype(equation.params["new_dtype"]))
    return [Tensor(graph.node("Cast", *_names(graph, given), to=to), tuple(given[0].shape))]


def _repeat(graph: Graph, equation: Any, given: list[Operand]) -> list[Operand]:
    """broadcast_in_dim: only the number of axes changes here."""
    shape = [1] * len(equation.params["shape"])
    for size, axis in zip(given[0].shape, equation.params["broadcast_dimensions"], strict=True):
        shape[axis] = size
    return [graph.reshape(given[0], shape)]


def _full(translate: Callable[..., list[str]]) -> Callable:
    """Operands in full, results of the shapes that JAX says."""

    def apply(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
        names = [graph.full(operand, v.aval.shape) for operand, v in zip(given, equation.invars, strict=True)]
        results = translate(graph, equation, *names)
        return [Tensor(name, tuple(v.aval.shape)) for name, v in zip(results, equation.outvars, strict=True)]

    return apply


def _reshaped(graph: Graph, name: str, old: Sequence, new: Sequence) -> str:
    return graph.name(graph.reshape(Tensor(name, tuple(old)), new))


@_full
def _reshape(graph: Graph, equation: Any, x: str) -> list[str]:
    return [_reshaped(graph, x, equation.invars[0].aval.shape, equation.outvars[0].aval.shape)]


@_full
def _transpose(graph: Graph, equation: Any, x: str) -> list[str]:
    return [graph.node("Transpose", x, perm=[*map(int, equation.params["permutation"])])]


@_full
def _concatenate(graph: Graph, equation: Any, *parts: str) -> list[str]:
    return [graph.node("Concat", *parts, axis=equation.params["dimension"])]


@_full
def _stack(graph: Graph, equation: Any, *parts: str) -> list[str]:
    axis = equation.params["axis"]
    axes = graph.numbers([axis])
    return [graph.node("Concat", *(graph.node("Unsqueeze", part, axes) for part in parts), axis=axis)]


@_full
def _unstack(graph: Graph, equation: Any, x: str) -> list[str]:
    axis, count = equation.params["axis"], len(equation.outvars)
    return [graph.node("Gather", x, graph.constant(i, np.int64), axis=axis) for i in range(count)]


@_full
def _split(graph: Graph, equation: Any, x: str) -> list[str]:
    sizes = [*map(int, equation.params["sizes"])]
    return graph.split("Split", x, graph.numbers(sizes), outputs=len(sizes), axis=equation.params["axis"])


@_full
def _slice(graph: Graph, equation: Any, x: str) -> list[str]:
    params, shape = equation.params, equation.invars[0].aval.shape
    strides = params["strides"] or [1] * len(shape)
    return [_cut(graph, x, shape, params["start_indices"], params["limit_indices"], strides)]


def _cut(graph: Graph, x: str, shape: Sequence, starts: Sequence, ends: Sequence, strides: Sequence) -> str:
    """Slice of the axes of which anything is left out; the batch is never cut."""
    kept = [*zip([0] * len(shape), shape, [1] * len(shape), strict=True)]
    cuts = {i: cut for i, cut in enumerate(zip(starts, ends, strides, strict=True)) if cut != kept[i]}
    if not cuts:
        return x
    first, last, steps = (graph.numbers(map(int, numbers)) for numbers in zip(*cuts.values(), strict=True))
    return graph.node("Slice", x, first, last, graph.numbers(cuts), steps)


def _gather(graph: Graph, equation: Any, given: list[Operand]) -> list[Operand]:
    """Of one place that is known: a slice, of which axes of size 1 are dropped."""
    params, (operand, result) = equation.params, (equation.invars[0].aval, equation.outvars[0].aval)
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    starts = _starts(given[1], numbers.start_index_map, operand.ndim)
    if len(numbers.offset_dims) != result.ndim:
        raise NotInOnnx(f"gathering from several places has no ONNX here: {equation}")
    ends = [start + size for start, size in zip(starts, sizes, strict=True)]
    cut = _cut(graph, graph.full(given[0], operand.shape), operand.shape, starts, ends, [1] * operand.ndim)
    return [graph.reshape(Tensor(cut, tuple(sizes)), result.shape)]


def _scatter_add(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    """To one place that is known: the update with zeros around it, added."""
    operand, update = equation.invars[0].aval, equation.invars[2].aval
    numbers = equation.params["dimension_numbers"]
    starts = _starts(given[1], numbers.scatter_dims_to_operand_dims, operand.ndim)
    if len(numbers.update_window_dims) != update.ndim:
        raise NotInOnnx(f"scattering to several places has no ONNX here: {equation}")
    sizes = list(update.shape)
    for axis in numbers.inserted_window_dims:
        sizes.insert(axis, 1)
    after = [whole - start - size for whole, start, size in zip(operand.shape, starts, sizes, strict=True)]
    whole = _reshaped(graph, graph.full(given[2], update.shape), update.shape, sizes)
    padded = graph.node("Pad", whole, graph.numbers(map(int, [*starts, *after])))
    return _by_element("Add")(graph, equation, [given[0], Tensor(padded, tuple(operand.shape))])


def _starts(places: Operand, axes: Sequence[int], rank: int) -> list[int]:
    if not isinstance(places, np.ndarray) or places.ndim != 1:
        raise NotInOnnx("gathering from or scattering to other than one known place has no ONNX here")
    known = dict(zip(axes, map(int, places), strict=True))
    return [known.get(axis, 0) for axis in range(rank)]


def _pad(graph: Graph, equation: Any, given: list[Operand]) -> list[Operand]:
    low, high, between = zip(*equation.params["padding_config"], strict=True)
    if any(between):
        raise NotInOnnx(f"padding between elements has no ONNX here: {equation}")
    return _padded(graph, equation, given) if any((*low, *high)) else given[:1]


@_full
def _padded(graph: Graph, equation: Any, x: str, value: str) -> list[str]:
    low, high, _ = zip(*equation.params["padding_config"], strict=True)
    return [graph.node("Pad", x, graph.numbers(map(int, (*low, *high))), value)]


def _reduce(kind: str) -> Callable:
    @_full
    def apply(graph: Graph, equation: Any, x: str) -> list[str]:
        axes = equation.params["axes"]  # none at all would mean all of them in ONNX
        return [graph.node(kind, x, graph.numbers(axes), keepdims=0) if axes else x]

    return apply


@_full
def _dot(graph: Graph, equation: Any, a: str, b: str) -> list[str]:
    (contract, batch), (left, right) = equation.params["dimension_numbers"], (v.aval.ndim for v in equation.invars)
    if tuple(map(tuple, (*contract, *batch))) == ((left - 1,), (0,), (), ()) and right == 2:
        return [graph.node("MatMul", a, b)]
    letters = iter(string.ascii_letters)
    names: list[dict[int, str]] = [{}, {}]  # axis -> letter, of both operands
    for pairs in (batch, contract):
        for axes in zip(*pairs, strict=True):
            letter = next(letters)
            for operand, axis in zip(names, axes, strict=True):
                operand[axis] = letter
    free = [[axis for axis in range(rank) if axis not in names[i]] for i, rank in enumerate((left, right))]
    for operand, rest in zip(names, free, strict=True):
        operand |= {axis: next(letters) for axis in rest}
    result = [names[0][axis] for axis in batch[0]] + [names[i][axis] for i in (0, 1) for axis in free[i]]
    terms = ("".join(operand[axis] for axis in sorted(operand)) for operand in names)
    return [graph.node("Einsum", a, b, equation=f"{','.join(terms)}->{''.join(result)}")]


def _conv(graph: Graph, equation: Any, given: list[Operand]) -> list[Tensor]:
    params, (image, result) = equation.params, (equation.invars[0].aval, equation.outvars[0].aval)
    numbers = params["dimension_numbers"]
    if params["batch_group_count"] != 1 or {*params["lhs_dilation"]} != {1} or not isinstance(given[1], np.ndarray):
        raise NotInOnnx(f"transposed convolutions and kernels that are no constants: {equation}")
    x = graph.node("Transpose", graph.full(given[0], image.shape), perm=numbers.lhs_spec)
    kernel = graph.constant(given[1].transpose(numbers.rhs_spec))
    y = graph.node(
        "Conv",
        x,
        kernel,
        strides=params["window_strides"],
        pads=_pads(params["padding"]),
        dilations=params["rhs_dilation"],
        group=params["feature_group_count"],
    )
    back = [*map(int, np.argsort(numbers.out_spec))]
    return [Tensor(graph.node("Transpose", y, perm=back), tuple(result.shape))]


@_full
def _max_pool(graph: Graph, equation: Any, x: str) -> list[str]:
    params = equation.params
    window, strides, padding = (params[n] for n in ("window_dimensions", "window_strides", "padding"))
    if len(window) != 4 or window[0] * window[3] * strides[0] * strides[3] != 1:
        raise NotInOnnx(f"pooling over other axes than height and width has no ONNX here: {equation}")
    shape = {"kernel_shape": window[1:3], "strides": strides[1:3], "pads": _pads(padding[1:3])}
    pooled = graph.node("MaxPool", graph.node("Transpose", x, perm=_NCHW), **shape)
    return [graph.node("Transpose", pooled, perm=_NHWC)]


def _pads(padding: Sequence[tuple[int, int]]) -> list[int]:
    """((low, high), ...) -> all lows, then all highs."""
    return [int(side) for sides in zip(*padding, strict=True) for side in sides]


OPERATIONS: dict[str, Callable] = {
    **dict.fromkeys(("copy", "stop_gradient"), _same),
    **{"add": _by_element("Add"), "add_any": _by_element("Add"), "sub": _by_element("Sub"), "mul": _by_element("Mul")},
    **{"div": _by_element("Div"), "max": _by_element("Max"), "min": _by_element("Min"), "neg": _by_element("Neg")},
    **{"exp": _by_element("Exp"), "logistic": _by_element("Sigmoid"), "tanh": _by_element("Tanh")},
    **{"sqrt": _by_element("Sqrt"), "rsqrt": _by_element("Sqrt", "Reciprocal"), "erf": _by_element("Erf")},
    **{"ge": _by_element("GreaterOrEqual"), "pow": _by_element("Pow")},
    **{"square": _square, "integer_pow": _power, "select_n": _select, "clamp": _clamp},
    **{"convert_element_type": _cast, "broadcast_in_dim": _repeat, "reshape": _reshape, "squeeze": _reshape},
    **{"transpose": _transpose, "concatenate": _concatenate, "stack": _stack, "unstack": _unstack, "split": _split},
    **{"slice": _slice, "pad": _pad, "gather": _gather, "scatter-add": _scatter_add},
    **{"reduce_sum": _reduce("ReduceSum"), "reduce_max": _reduce("ReduceMax"), "dot_general": _dot},
    **{"conv_general_dilated": _conv, "reduce_window_max": _max_pool},
}
