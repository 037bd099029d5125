"""An ONNX graph under construction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from cion_jax.common.errors import UserError

Shape = Sequence[Any]  # of whole numbers and multiples of the batch


class NotInOnnx(UserError):
    """The program holds an operation that is not translated."""


@dataclass(frozen=True)
class Tensor:
    """The result of a node.

    Attributes:
      name: in the graph.
      shape: there. It may have ones where JAX's value repeats: ONNX, too, repeats such axes by itself.
    """

    name: str
    shape: tuple


Operand = Tensor | np.ndarray


class Graph:
    """Nodes and constants in order.

    Attributes:
      nodes: ONNX nodes.
      initializers: ONNX tensors.
    """

    def __init__(self, image: str, batch: Any):
        """Takes the input's name and JAX's symbol for the size of its first axis."""
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self._image, self._batch = image, batch
        self._constants: dict[int, tuple[np.ndarray, str]] = {}  # the array is kept, so that its id stays its own
        self._count = 0

    def input(self, shape: Shape) -> Tensor:
        """The graph's input."""
        return Tensor(self._image, tuple(shape))

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Adds a node with one result; returns its name."""
        return self.split(kind, *inputs, outputs=[output or self._name(kind)], **attributes)[0]

    def split(self, kind: str, *inputs: str, outputs: Iterable[str] | int, **attributes: Any) -> list[str]:
        """Adds a node with several results, given by name or number; returns their names."""
        names = [self._name(kind) for _ in range(outputs)] if isinstance(outputs, int) else list(outputs)
        self.nodes.append(helper.make_node(kind, inputs, names, **attributes))
        return names

    def constant(self, value: Any, dtype: Any = None) -> str:
        """Name of a constant; int64 vectors are what ONNX wants where it asks for axes, sizes and places."""
        array = np.asarray(value, dtype)
        if id(array) not in self._constants:
            name = self._name("constant")
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name))
            self._constants[id(array)] = array, name
        return self._constants[id(array)][1]

    def numbers(self, values: Iterable[int]) -> str:
        """Name of an int64 vector."""
        return self.constant(list(values), np.int64)

    def name(self, operand: Operand) -> str:
        """Name of an operand as it is."""
        return operand.name if isinstance(operand, Tensor) else self.constant(operand)

    def full(self, operand: Operand, shape: Shape) -> str:
        """Name of an operand whose repeated axes are written out to `shape`."""
        if tuple(operand.shape) == tuple(shape):
            return self.name(operand)
        # An axis that is given as 1 keeps its size.
        wanted = [1 if old == new else new for old, new in zip(operand.shape, shape, strict=True)]
        return self.node("Expand", self.name(operand), self._sizes(wanted))

    def reshape(self, operand: Operand, shape: Shape) -> Operand:
        """An operand in another shape, of which at most one axis depends on the batch."""
        if tuple(operand.shape) == tuple(shape):
            return operand
        if isinstance(operand, np.ndarray):
            return operand.reshape([*map(int, shape)])
        sizes = self.numbers(size if isinstance(size, int) else -1 for size in shape)
        return Tensor(self.node("Reshape", operand.name, sizes), tuple(shape))

    def _sizes(self, sizes: list) -> str:
        """Name of an int64 vector that may hold multiples of the batch."""
        if all(isinstance(size, int) for size in sizes):
            return self.numbers(sizes)
        batch = self.node("Shape", self._image, start=0, end=1)
        parts = [
            self.numbers([size])
            if isinstance(size, int)
            else self.node("Mul", batch, self.numbers([int(size // self._batch)]))
            for size in sizes
        ]
        return self.node("Concat", *parts, axis=0)

    def _name(self, kind: str) -> str:
        self._count += 1
        return f"{kind}_{self._count}"
