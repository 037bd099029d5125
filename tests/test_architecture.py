"""Which module may import which: the order of rooms, what is free of JAX, no circles, no file too long.

Imports are read, not run: those within functions count too.
"""

import ast
import functools
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("cion_jax", "data_prep")

# Lower rooms first; a module imports from its own room and from lower ones. Rooms of one line do not import each other.
ORDER = (
    ("cion_jax.common",),
    ("cion_jax.neighbors",),
    ("cion_jax.distributed", "cion_jax.models", "cion_jax.data"),
    ("cion_jax.reid",),
    ("cion_jax.tasks", "cion_jax.training"),
    ("cion_jax.weights",),  # a run's folder is a source of weights
    ("cion_jax.exporting",),
    ("cion_jax.rounds",),  # both halves, one after the other
    ("cion_jax",),  # programs and the Python API
    ("cion_jax.rounds.__main__",),  # a program that runs others
)
# Of data_prep, all of which may import cion_jax.common, cion_jax.neighbors and the modules of `SHARED`.
PREP_ORDER = (
    ("data_prep.types",),
    ("data_prep.denoise", "data_prep.embedders"),
    ("data_prep.config",),
    ("data_prep.sources",),
    ("data_prep.doctor",),
    ("data_prep.synthetic",),
    ("data_prep.output",),
    ("data_prep.pipeline",),
    ("data_prep",),  # programs and the Python API
)
SHARED = (
    "cion_jax.common",
    "cion_jax.neighbors",
    "cion_jax.data.records",
    "cion_jax.data.shards",
    "cion_jax.data.image_parts",
)
# Of cion_jax, what may import data_prep: it runs the two halves in turn.
OF_BOTH = ("cion_jax.adapt", "cion_jax.rounds")
# What trains: a task knows its trainer, and the trainer looks tasks up by name, so they are one room.
TOGETHER = {"cion_jax.tasks": "cion_jax.training"}

WITHOUT_JAX = ("cion_jax.common", "cion_jax.neighbors", "data_prep")
MAY_USE_JAX = ("data_prep.embedders.flax",)
JAX = {"jax", "jaxlib", "flax", "optax", "orbax", "clu"}
MOST_LINES = 400

# Not yet as it should be. This list may only become shorter: an entry that is true no longer fails, too.
UPWARD: set[tuple[str, str]] = set()
MISSING: set[tuple[str, str]] = set()
CIRCLES: set[frozenset[str]] = set()
TOO_LONG: set[str] = set()


def module_name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@functools.cache
def modules():
    """All modules by name."""
    found = (path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py")))
    return {module_name(path): path for path in found}


def names_imported(module, tree):
    """Dotted names that a module's text imports, each as far as it is written."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module} has a relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def missing():
    """(importing, imported) where the imported module of this project does not exist."""
    for module, path in modules().items():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            named = [node.module] if isinstance(node, ast.ImportFrom) else []
            named += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            yield from ((module, name) for name in named if name.split(".")[0] in PACKAGES and name not in modules())


def known(name):
    """The module of this project that a dotted name lies in; None: it is somebody else's."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


@functools.cache
def imports(module):
    """Modules of this project, and top-level packages of others, that a module imports."""
    names = set(names_imported(module, ast.parse(modules()[module].read_text("utf-8"))))
    return {known(name) or name.split(".")[0] for name in names} - {module}


def room(module, order):
    """Level and name of the room that a module is in; the most precise one counts."""
    rooms = {name: level for level, names in enumerate(order) for name in names}
    name = module
    while name not in rooms:
        name = name.rpartition(".")[0]
    return rooms[name], TOGETHER.get(name, name)


def arrows(prefix):
    """(importing, imported) modules of one package."""
    return [(a, b) for a in modules() if a.split(".")[0] == prefix for b in imports(a) if b.split(".")[0] == prefix]


def upward():
    """Arrows that run up, or between two rooms of one line."""
    for package, order in (("cion_jax", ORDER), ("data_prep", PREP_ORDER)):
        for a, b in arrows(package):
            (level, name), (other_level, other_name) = room(a, order), room(b, order)
            if other_level > level or (other_level == level and name != other_name):
                yield a, b


def within(module, names):
    return any(module == name or module.startswith(f"{name}.") for name in names)


def reached(module):
    """All that a module imports, directly or through others of this project."""
    seen, todo = set(), [module]
    while todo:
        for name in imports(todo.pop()) - seen:
            seen.add(name)
            todo += [name] if name in modules() else []
    return seen


def circles():
    """Sets of modules that import each other, through however many (Tarjan's strongly connected components)."""
    reach = {module: reached(module) for module in modules()}
    return {frozenset(b for b in reach[a] if a in reach.get(b, ())) | {a} for a in modules() if a in reach[a]}


def test_there_is_something_to_look_at():
    assert len(modules()) > 100
    assert "cion_jax.common.registry" in imports("data_prep.denoise.method")
    assert "numpy" in imports("cion_jax.neighbors.cosine")
    assert "jax" in reached("cion_jax.train")


def test_what_is_imported_exists():
    found = set(missing())
    assert found - MISSING == set(), "there is no such module"
    assert MISSING - found == set(), "these are mended; take them off the list"


def test_no_arrow_runs_up():
    lost = {module for module, _ in missing()}  # where they should point to is not known
    found = {(a, b) for a, b in upward() if a not in lost}
    assert found - UPWARD == set(), "a lower room imports a higher one; move what it needs down, or hand it in"
    assert UPWARD - found == set(), "these are mended; take them off the list"


def test_no_circles():
    found = circles()
    assert found - CIRCLES == set(), "these modules import each other"
    assert CIRCLES - found == set(), "these are mended; take them off the list"


@pytest.mark.parametrize("prefix", WITHOUT_JAX)
def test_without_jax(prefix):
    some = [module for module in modules() if within(module, [prefix]) and not within(module, MAY_USE_JAX)]
    assert some
    for module in some:
        # What is only looked up by name, as the feature extractor that is a Flax network, is not reached.
        reach = {name for name in reached(module) if not within(name, MAY_USE_JAX)}
        assert not JAX & reach, f"{module} reaches JAX"


def test_the_two_halves_share_little():
    for module in modules():
        if module.startswith("data_prep") and module not in MAY_USE_JAX:
            others = [name for name in imports(module) if name.startswith("cion_jax") and not within(name, SHARED)]
            assert not others, f"{module} imports {others}; expected only {SHARED}"
        if module.startswith("cion_jax") and not within(module, OF_BOTH):
            assert not [name for name in imports(module) if name.startswith("data_prep")], module


def test_no_file_is_too_long():
    found = {name for name, path in modules().items() if len(path.read_text("utf-8").splitlines()) > MOST_LINES}
    assert found - TOO_LONG == set(), f"more than {MOST_LINES} lines"
    assert TOO_LONG - found == set(), "these are mended; take them off the list"
