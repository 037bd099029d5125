"""A machine for pickles of others, which makes containers, numbers and texts, what it is told to, and nothing else.

Python's own unpickler imports and calls what a file names, and takes any memory that it asks for. This one knows the
opcodes that picklers of protocol 2 to 5 write. It calls only the functions that it is given; every other name becomes
an `Inert`. Everything it makes has a bound: operations, containers, how deep they lie in each other. It hashes nothing
but plain keys, so that no structure can make it run long.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cion_jax.common.errors import UserError
from cion_jax.common.printable import printable

# A checkpoint of `torch.save`, of 1,000 tensors with its optimizer, needs 100,000 operations and 15,000 containers.
OPERATIONS, CONTAINERS, GLOBALS, DEPTH = 2_000_000, 300_000, 100_000, 100
_PLAIN = (str, int, float, bytes, bool, type(None))


class PickleError(UserError):
    """The pickle does what none of plain data does, or too much of it."""


class Inert:
    """Stands for an object whose class is not ours to make: whatever the pickle does to it is forgotten.

    Attributes:
      name: of the class or function, as the file spells it.
    """

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name

    def __repr__(self) -> str:
        return f"<{printable(self.name)}, not loaded>"


class Global(Inert):
    """A class or function that the file names; the pickle can call it, with another `Inert` as its result."""

    __slots__ = ()


class Machine:
    """Runs pickles.

    Args:
      calls: by full name, the functions that a file may call. They get whatever arguments it gives.
      persistent: makes an object from a persistent id.
      operations: at most of one pickle; None: `OPERATIONS`.
    """

    def __init__(self, calls: Mapping[str, Callable], persistent: Callable[[Any], Any], operations: int | None = None):
        self._calls, self._persistent, self._operations = calls, persistent, operations or OPERATIONS
        self._stack: list[Any] = []
        self._marked: list[list[Any]] = []  # the stacks below each mark
        self._memo: dict[int, Any] = {}
        self._containers: list[Any] = []  # kept, so that no other object gets the id of one
        self._depths: dict[int, int] = {}
        self._inside: set[int] = set()
        self._globals = 0

    def run(self, file: Any) -> Any:
        """Reads one pickle, up to the end of it.

        Args:
          file: anything with `read`, `readline` and `tell` of bytes.

        Raises:
          PickleError: it does what no pickle of plain data does, or too much of it.
          ValueError, IndexError, KeyError and the like: it is damaged.
        """
        for count, (opcode, argument, _) in enumerate(pickletools.genops(file)):
            if count >= self._operations:
                raise PickleError(f"its pickle has more than {self._operations:,} operations")
            if opcode.name == "STOP":
                break
            if opcode.name in _PUSHED:
                self._stack.append(argument)
            elif opcode.name in _OPERATIONS:
                _OPERATIONS[opcode.name](self, argument)
            else:
                raise PickleError(f"its pickle has the operation {opcode.name}, which no pickle of plain data needs")
        return self._stack.pop()

    def call(self, function: Any, arguments: Any) -> Any:
        """What a call gives: of one of `calls` its result, of every other name an `Inert`."""
        if not isinstance(function, Global):
            raise PickleError(f"it calls {kind_of(function)}, which is not callable")
        if type(arguments) is not tuple:
            raise PickleError(f"it calls {function!r} with {kind_of(arguments)}, expected a tuple")
        made = self._calls[function.name](*arguments) if function.name in self._calls else Inert(function.name)
        return self._made(made) if type(made) is OrderedDict else made

    def _made(self, container: Any, children: Iterable[Any] = ()) -> Any:
        """Counts a new container."""
        if len(self._containers) >= CONTAINERS:
            raise PickleError(f"its pickle makes more than {CONTAINERS:,} containers")
        self._containers.append(container)
        self._depths[id(container)] = 1
        self._put_inside(container, children)
        return container

    def _put_inside(self, container: Any, children: Iterable[Any]) -> None:
        """Keeps count of how deep containers lie in each other; one that lies in another is finished."""
        deepest = self._depths[id(container)]
        for child in children:
            if id(child) in self._depths:
                deepest = max(deepest, 1 + self._depths[id(child)])
                self._inside.add(id(child))
        if deepest > DEPTH:
            raise PickleError(f"its pickle has containers that lie in each other {DEPTH} deep")
        self._depths[id(container)] = deepest

    def _to_mark(self) -> list[Any]:
        items, self._stack = self._stack, self._marked.pop()
        return items

    def _forget(self, _: Any) -> None:
        self._to_mark()

    def _frozen_set(self, _: Any) -> None:
        self._to_mark()
        self._stack.append(Inert("builtins.frozenset"))

    def _mark(self, _: Any) -> None:
        if len(self._marked) > 3 * DEPTH:
            raise PickleError(f"its pickle begins containers within each other {len(self._marked)} deep")
        self._marked.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._stack = self._marked.pop()

    def _remember(self, at: int | None) -> None:
        self._memo[len(self._memo) if at is None else at] = self._stack[-1]

    def _tuple(self, items: list[Any]) -> None:
        self._stack.append(self._made(tuple(items), items))

    def _tuple_of(self, count: int) -> None:
        items = [self._stack.pop() for _ in range(count)][::-1]
        self._tuple(items)

    def _grow(self, kind: type, items: list[Any]) -> Any:
        """The container on top of the stack, about to take items; None where it forgets them."""
        top = self._stack[-1]
        if isinstance(top, Inert) and not isinstance(top, Global):
            return None
        if not isinstance(top, kind) or id(top) in self._inside:
            raise PickleError(f"it puts items into {kind_of(top)}")
        self._put_inside(top, items)
        return top

    def _append(self, items: list[Any]) -> None:
        top = self._grow(list, items)
        if top is not None:
            top.extend(items)

    def _set(self, items: list[Any]) -> None:
        top = self._grow(dict, items[1::2])
        if top is not None:
            fill(top, zip(items[::2], items[1::2], strict=True))

    def _global(self, name: str) -> None:
        self._globals += 1
        if self._globals > GLOBALS:
            raise PickleError(f"its pickle names more than {GLOBALS:,} functions and classes")
        self._stack.append(Global(name))

    def _stack_global(self, _: Any) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise PickleError(f"it names {kind_of(module)} and {kind_of(name)}, expected a module and a name")
        self._global(f"{module}.{name}")

    def _reduce(self, _: Any) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        self._stack.append(self.call(function, arguments))

    def _new(self, keywords: bool) -> None:
        if keywords:
            self._stack.pop()
        self._reduce(None)

    def _build(self, _: Any) -> None:
        """Forgets the state: of an ordered dict it is `_metadata`, and no other object that we make has any."""
        self._stack.pop()
        if isinstance(self._stack[-1], Global) or not isinstance(self._stack[-1], Inert | dict):
            raise PickleError(f"it sets the state of {kind_of(self._stack[-1])}; no pickle of plain data does")

    def _persist(self, _: Any) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


def fill(target: dict, items: Iterable[tuple[Any, Any]]) -> None:
    """Sets items whose keys are plain and new.

    Raises:
      PickleError: a key is a container of containers, or is there already.
    """
    for key, value in items:
        plain = (
            all(isinstance(part, _PLAIN) for part in key) if type(key) is tuple else isinstance(key, (*_PLAIN, Inert))
        )
        if not plain:
            raise PickleError(f"it has {kind_of(key)} as a name")
        if key in target:
            raise PickleError(f"it has the name {printable(key)} twice")
        target[key] = value


def kind_of(thing: Any) -> str:
    """For messages: the file's names, or the type alone, since what it holds may be endless."""
    if isinstance(thing, Inert):
        return f"{'a function' if isinstance(thing, Global) else 'an object'} ({printable(thing.name)})"
    return f"a {type(thing).__name__}"


_PUSHED = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"),
    *("SHORT_BINSTRING", "BINSTRING", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_OPERATIONS: dict[str, Callable[[Machine, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "NONE": lambda machine, _: machine._stack.append(None),
    "NEWTRUE": lambda machine, _: machine._stack.append(True),
    "NEWFALSE": lambda machine, _: machine._stack.append(False),
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._forget,
    "EMPTY_TUPLE": lambda machine, _: machine._tuple([]),
    "TUPLE": lambda machine, _: machine._tuple(machine._to_mark()),
    "TUPLE1": lambda machine, _: machine._tuple_of(1),
    "TUPLE2": lambda machine, _: machine._tuple_of(2),
    "TUPLE3": lambda machine, _: machine._tuple_of(3),
    "EMPTY_LIST": lambda machine, _: machine._stack.append(machine._made([])),
    "APPEND": lambda machine, _: machine._append([machine._stack.pop()]),
    "APPENDS": lambda machine, _: machine._append(machine._to_mark()),
    "EMPTY_DICT": lambda machine, _: machine._stack.append(machine._made({})),
    "SETITEM": lambda machine, _: machine._set([machine._stack.pop(-2), machine._stack.pop()]),
    "SETITEMS": lambda machine, _: machine._set(machine._to_mark()),
    "EMPTY_SET": lambda machine, _: machine._stack.append(Inert("builtins.set")),
    "ADDITEMS": lambda machine, _: machine._append(machine._to_mark()),
    "FROZENSET": Machine._frozen_set,
    "BINPUT": Machine._remember,
    "LONG_BINPUT": Machine._remember,
    "MEMOIZE": Machine._remember,
    "BINGET": lambda machine, at: machine._stack.append(machine._memo[at]),
    "LONG_BINGET": lambda machine, at: machine._stack.append(machine._memo[at]),
    "GLOBAL": lambda machine, name: machine._global(name.replace(" ", ".")),
    "STACK_GLOBAL": Machine._stack_global,
    "REDUCE": Machine._reduce,
    "NEWOBJ": lambda machine, _: machine._new(keywords=False),
    "NEWOBJ_EX": lambda machine, _: machine._new(keywords=True),
    "BUILD": Machine._build,
    "BINPERSID": Machine._persist,
}
