"""Where tests find the reference numbers and the real data; both live outside the repository."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(os.environ.get("CION_FIXTURES", ROOT.parent / "shared" / "fixtures"))
DATA = Path(os.environ.get("CION_DATA", ROOT.parent / "shared" / "data"))

# Tests simulate a pod with eight CPU devices; the flags must be set before JAX starts.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Most of the tests' time is compilation, of programs that run for a second: without XLA's optimizations and with its
# older code generator that takes a fifth and less. Processes that tests start inherit both.
QUICKLY = "--xla_cpu_use_fusion_emitters=false"
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8 {QUICKLY}"
# Many compile the same programs, and every process the same small ones before its first step. A program for a CPU is
# made for as many cores as there are, which its key in the cache leaves out: others round differently.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".cache" / "jax" / str(len(os.sched_getaffinity(0)))))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")


@pytest.fixture(scope="session")
def fixtures() -> Path:
    """Folder of the reference numbers; skips where it is absent."""
    if not FIXTURES.is_dir():
        pytest.skip(f"no reference numbers at {FIXTURES}; set CION_FIXTURES to their folder")
    return FIXTURES


@pytest.fixture(scope="session")
def data() -> Path:
    """Folder of the real data; skips where it is absent."""
    if not DATA.is_dir():
        pytest.skip(f"no real data at {DATA}; set CION_DATA to its folder")
    return DATA


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Keeps tests that share an expensive fixture on one worker: those of one file, or of one backbone in it.

    Files of whole runs come first, so that none of them is left over for one worker at the end.
    """
    items.sort(key=lambda item: item.path.parent != ROOT / "tests")
    for item in items:
        params = item.callspec.params if hasattr(item, "callspec") else {}
        backbone = params.get("measured", params.get("trained", ""))
        item.add_marker(pytest.mark.xdist_group(f"{item.path.relative_to(ROOT)}{backbone}"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> Path:
    """Folder of the toy's identity shards."""
    from tests import toy  # only now: it starts JAX

    folder = tmp_path_factory.mktemp("shards")
    toy.write_shards(folder)
    return folder
