"""Things by name: from modules, from other packages, never two of one name."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from cion_jax.common.registry import Registry
from cion_jax.common.typed_config import ConfigError


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """Of a package with one module, beside an installed package with an entry point."""
    package = tmp_path / "shapes"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from cion_jax.common.registry import Registry\nREGISTRY = Registry('shape', 'shapes', 'shapes')\n"
    )
    (package / "square.py").write_text("from shapes import REGISTRY\nREGISTRY.register('square', 4)\n")
    info = tmp_path / "other-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[cion_jax.shapes]\ntriangle = other:SIDES\n")
    (tmp_path / "other.py").write_text("SIDES = 3\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield __import__("shapes").REGISTRY
    for name in ("shapes", "shapes.square", "other"):
        sys.modules.pop(name, None)


def test_modules_and_entry_points_are_found(registry):
    assert registry.names() == ["square", "triangle"]
    assert (registry["square"], registry["triangle"]) == (4, 3)


def test_a_thread_waits_for_what_another_imports(registry, tmp_path):
    slow = "import time\ntime.sleep(0.5)\nfrom shapes import REGISTRY\nREGISTRY.register('zigzag', 5)\n"
    (tmp_path / "shapes" / "zigzag.py").write_text(slow)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: registry["zigzag"], range(4))) == [5] * 4
    del sys.modules["shapes.zigzag"]


def test_a_place_is_imported_when_it_is_asked_for(registry):
    registry.register_lazily("pentagon", "polygons:FIVE")
    assert "pentagon" in registry
    with pytest.raises(ModuleNotFoundError, match="polygons"):
        registry["pentagon"]
    registry.register_lazily("three", "other:SIDES")
    assert registry["three"] == 3


def test_an_unknown_name_is_answered_with_the_nearest(registry):
    with pytest.raises(ConfigError, match=r"there is no shape 'squard'; did you mean 'square'\? Known: square, tri"):
        registry["squard"]


def test_a_name_stands_for_one_thing(registry):
    registry.register("square", 4)
    with pytest.raises(ValueError, match="there are two of shape 'square': 4 and 5"):
        registry.register("square", 5)


def test_registering_as_a_decorator():
    registry = Registry("shape", "tests", "none")

    @registry.add("circle")
    def circle():
        return 0

    assert registry._found == {"circle": circle}
