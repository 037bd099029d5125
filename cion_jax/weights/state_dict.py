"""Finds the state dict that fits a model within whatever a file holds.

Files wrap weights in dicts (`state_dict`, `model`, `teacher`) and names in prefixes (`module.`, `_orig_mod.`,
`backbone.`, `encoder_q.`). No list of them is ever complete, so the model's own names decide: every dict of tensors
and every prefix in it is counted by how many of the names behind it are the model's.
"""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np

from cion_jax.common.printable import printable, some
from cion_jax.weights.positions import POSITIONS
from cion_jax.weights.torch_file import Inert
from cion_jax.weights.torch_names import WeightsError

_WRAPPERS = re.compile(r"(?<=[^.])\.(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)(?=\.)")
Network = Literal["teacher", "student"]

# Dicts in each other, dicts of tensors, parts of a prefix, signs of a name: what lies beyond is of no model.
_DEEPEST, _MOST, _PARTS, _LONGEST = 5, 100, 12, 1000
_BARE = "the names without a prefix"
_HEAD = ("mlp.", "last_layer.")  # of the distillation head; a backbone may have a classifier called `head`
_CHOSEN = {"teacher", "student"}
# Averages of a network over its training, which are what gets evaluated; a momentum encoder is not: it is a target.
_AVERAGES = {
    "teacher",
    "ema",
    "model_ema",
    "ema_model",
    "state_dict_ema",
    "ema_state_dict",
    "ema_network",
    "params_ema",
}
_TARGETS = {"encoder_k", "momentum_encoder", "target_encoder", "target_network", "key_encoder"}


class Lazy(Protocol):
    """A tensor of a file that is read by `array()`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the numbers."""

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers."""

    def array(self) -> np.ndarray:
        """The numbers."""


@dataclass(frozen=True)
class Group:
    """Tensors of one dict whose names share a prefix.

    Attributes:
      label: where they are, as texts write it: `state_dict.module.encoder_q`.
      prefix: of the names, with its dot.
      tensors: the whole dict.
      names, shapes: how many of the model's names are there, and how many with the model's shape; positions can be
        resized.
    """

    label: str
    prefix: str
    tensors: Mapping[str, Lazy]
    names: int
    shapes: int

    @property
    def words(self) -> set[str]:
        """The parts of the label."""
        return set(self.label.split("."))


@dataclass(frozen=True)
class Found:
    """One network of a file, nothing of it read yet.

    Attributes:
      backbone: names without any prefix.
      head: of the distillation head, without `head.`.
      said: for people: what was taken, and what was not; empty where there was no choice.
    """

    backbone: dict[str, Lazy]
    head: dict[str, Lazy]
    said: str


def tensor_dicts(saved: Any) -> list[tuple[tuple[str, ...], dict[str, Lazy]]]:
    """Every dict within what was saved that holds tensors under names, with the keys that lead there; outer ones first.

    A dict that is there twice is listed once.
    """
    found: list[tuple[tuple[str, ...], dict[str, Lazy]]] = []
    waiting: deque[tuple[tuple[str, ...], Any]] = deque([((), saved)])
    seen = {id(saved)}
    while waiting and len(found) < _MOST:
        where, thing = waiting.popleft()
        items = [(key, value) for key, value in _items(thing) if len(key) <= _LONGEST]
        tensors = _unwrapped({key: value for key, value in items if hasattr(value, "array")})
        if tensors:
            found.append((where, tensors))
        for key, value in items:
            if isinstance(value, dict | list | tuple) and id(value) not in seen and len(where) < _DEEPEST:
                seen.add(id(value))
                waiting.append(((*where, key), value))
    return found


def _items(thing: Any) -> Iterator[tuple[str, Any]]:
    """Keys and values of a dict, a list, or a list of (name, tensor)."""
    if isinstance(thing, dict):
        yield from ((key, value) for key, value in thing.items() if isinstance(key, str))  # not an optimizer's numbers
    elif isinstance(thing, list | tuple):
        for number, value in enumerate(thing):
            pair = isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)
            yield value if pair and hasattr(value[1], "array") else (str(number), value)


def _unwrapped(tensors: dict[str, Lazy]) -> dict[str, Lazy]:
    """Names without what wrappers of single layers put in their midst; as they are where two would become one."""
    plain = {_WRAPPERS.sub("", name): tensor for name, tensor in tensors.items()}
    return plain if len(plain) == len(tensors) else tensors


def choose(
    saved: Any,
    shapes: Mapping[str, tuple[int, ...]],
    network: Network = "teacher",
    label: str = "",
) -> Found:
    """The state dict that fits best.

    Args:
      saved: what a file holds.
      shapes: of the model's tensors by name.
      network: which one, of a file that has a teacher and a student, or an average beside a network.
      label: takes this one, as messages name it.

    Raises:
      WeightsError: no state dict, none with any of the model's names, no such network, no such label.
    """
    dicts = tensor_dicts(saved)
    if not dicts:
        raise WeightsError(why_none(saved))
    groups = [group for where, tensors in dicts for group in _groups(where, tensors, shapes)]
    if not groups:
        names = [name for _, tensors in dicts for name in tensors]
        raise WeightsError(
            f"none of its {len(names)} names is one of the model's; it has {some(names)}; the model has "
            f"{some(sorted(shapes))}"
        )
    most = max(group.names for group in groups)
    groups = [group for group in groups if 2 * group.names >= most or group.label == label]
    chosen = _labeled(groups, label) if label else _best(groups, network, len(shapes))
    return _found(chosen, groups, dicts)


def _groups(
    where: tuple[str, ...], tensors: Mapping[str, Lazy], shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[Group]:
    """The prefixes of one dict behind which names of the model stand."""
    names, fitting = Counter[str](), Counter[str]()
    for name, tensor in tensors.items():
        for prefix in _prefixes(name):
            rest = name[len(prefix) :]
            if rest in shapes:
                names[prefix] += 1
                fitting[prefix] += rest == POSITIONS or tuple(tensor.shape) == shapes[rest]
    for prefix, count in names.items():
        label = ".".join((*where, *filter(None, prefix.split("."))))
        yield Group(label, prefix, tensors, count, fitting[prefix])


def _prefixes(name: str) -> Iterator[str]:
    """ "a.b.c" -> "", "a.", "a.b."; the rest of an endless name is not looked at."""
    at = -1
    for _ in range(_PARTS + 1):
        yield name[: at + 1]
        at = name.find(".", at + 1)
        if at < 0:
            return


def _best(groups: list[Group], network: Network, whole: int) -> Group:
    """Those that fit wholly come before the rest; among them what `network` says, then the better fit."""
    roles = [group for group in groups if group.words & _CHOSEN]
    if roles:
        groups = [group for group in roles if network in group.words]
        if not groups:
            raise WeightsError(
                f"it has no {network}, but a {', '.join(sorted(set.union(*(g.words for g in roles)) & _CHOSEN))}"
            )
    elif network == "student":
        groups, all_groups = [group for group in groups if not group.words & _AVERAGES], groups
        if len(groups) in (0, len(all_groups)):
            raise WeightsError("it holds one network, not a student beside a teacher; leave the choice out")

    def order(group: Group) -> tuple[bool, int, int, int]:
        rank = 2 if group.words & _TARGETS else 0 if group.words & _AVERAGES else 1
        return group.shapes < whole, rank, -group.shapes, -group.names

    return min(groups, key=order)


def _labeled(groups: list[Group], label: str) -> Group:
    for group in groups:
        if group.label == label:
            return group
    raise WeightsError(
        f"it has no {printable(label)}; it has {some(group.label or 'names without a prefix' for group in groups)}"
    )


def _found(chosen: Group, groups: list[Group], dicts: list) -> Found:
    """Splits the chosen names into backbone and head: `backbone.x` and `head.x`, or `x` and `head.x`."""
    beside = chosen.prefix.removesuffix("backbone.") + "head."
    starts = tuple(beside + part for part in _HEAD)
    head = {name.removeprefix(beside): t for name, t in chosen.tensors.items() if name.startswith(starts)}
    backbone = {
        name.removeprefix(chosen.prefix): tensor
        for name, tensor in chosen.tensors.items()
        if name.startswith(chosen.prefix) and not name.startswith(starts)
    }
    others = [group.label or _BARE for group in groups if group is not chosen]
    if not chosen.label and not others:
        return Found(backbone, head, "")
    said = f"took {printable(chosen.label) or _BARE} ({len(backbone)} tensors)"
    if others:
        said += f"; {some(others)} would fit too: FILE#{printable(others[0])} takes that"
    rest = _rest(chosen, beside, others, dicts)
    if rest:
        said += f"; not taken: {some(f'{label} ({count} tensors)' for label, count in rest.items())}"
    return Found(backbone, head, said)


def _rest(chosen: Group, beside: str, others: list[str], dicts: list) -> Counter[str]:
    """How many tensors are elsewhere, by the first part of their names."""
    count: Counter[str] = Counter()
    above = {other[:at] for other in others for at, sign in enumerate(other + ".") if sign == "."}
    for where, tensors in dicts:
        for name in tensors:
            label = ".".join((*where, name.split(".")[0]))
            taken = tensors is chosen.tensors and name.startswith((chosen.prefix, beside))
            if not taken and label not in above:
                count[label] += 1
    return count


def why_none(saved: Any) -> str:
    """Why what was saved is no state dict, and what to do."""
    if isinstance(saved, Inert):
        return _whole_module(saved, "")
    if not isinstance(saved, dict):
        return f"it holds a {type(saved).__name__}, expected a state dict"
    for key, value in saved.items():
        if isinstance(value, Inert) and key in ("model", "net", "network", "module", "ema", "backbone", "state_dict"):
            return _whole_module(value, f"[{key!r}]")
    strange = [repr(printable(key)) for key in saved]
    return f"it is no state dict: {f'{some(strange)} is no tensor' if strange else 'it is empty'}"


def _whole_module(saved: Inert, at: str) -> str:
    return (
        f"it holds a whole module ({printable(saved.name)}), which only the program that made it can open; save its "
        f'weights alone, there: torch.save(torch.load(FILE, weights_only=False){at}.state_dict(), "weights.pth")'
    )
