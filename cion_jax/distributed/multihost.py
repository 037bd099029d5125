"""A run of several processes: how they find each other, and what they tell each other.

On TPU pods (GCE, GKE), under Slurm and under Open MPI the environment says it all; elsewhere every process is given
`--coordinator=HOST:PORT --processes=N --process=I`. Where nothing speaks of several processes nothing is started.
"""

from __future__ import annotations

import contextlib
import functools
import os
import secrets
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import jax
import numpy as np
from absl import flags
from jax._src import distributed  # the coordinator's address is told nowhere else
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from cion_jax.common import cli
from cion_jax.common.bounds import between
from cion_jax.common.typed_config import ConfigError
from cion_jax.distributed import liveness

# Seconds after which JAX's own heartbeat gives a process up; the roll call is quicker, and names it.
_HEARTBEAT = 45
_NAME_BYTES = 64


@dataclass(frozen=True)
class Place:
    """This process's place in a run, given by hand.

    Attributes:
      coordinator: host:port of process 0.
      processes: how many there are.
      process: number of this one.
    """

    coordinator: str
    processes: int
    process: int


def define_flags() -> Callable[[], Place | None]:
    """Defines --coordinator, --processes and --process; the function returned gives a Place, None without them."""
    coordinator = flags.DEFINE_string("coordinator", None, "host:port of process 0, where no cluster tells it.")
    processes = cli.define_number("processes", None, "How many processes there are.", between(1, 10**6))
    process = cli.define_number("process", None, "Number of this process, from 0.", between(0, 10**6))
    return lambda: place(coordinator.value, processes.value, process.value)


def place(coordinator: str | None, processes: int | None, process: int | None) -> Place | None:
    """Checks what was given by hand.

    Raises:
      ConfigError: only a part was given, or the numbers contradict each other.
    """
    if coordinator is None and processes is None and process is None:
        return None
    if coordinator is None or processes is None or process is None:
        raise ConfigError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: all three are needed, "
            "e.g. --coordinator=host0:8476 --processes=2 --process=0"
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 <= process < processes:
        raise ConfigError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: expected HOST:PORT and a "
            "process in 0 .. processes-1"
        )
    return Place(coordinator, processes, process)


def detected(environ: Mapping[str, str]) -> str | None:
    """JAX's name for the cluster that the environment speaks of; None where it speaks of one process.

    JAX itself would also take a single task of Slurm for a cluster, and then hide all devices but one.
    """
    if int(environ.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        return "slurm"
    if int(environ.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        return "ompi"
    # JAX sets TPU_ML_PLATFORM where it finds TPU chips. GKE names the hosts, elsewhere JAX asks the metadata server.
    if "TPU_ML_PLATFORM" not in environ or "tpu" not in environ.get("JAX_PLATFORMS", "tpu"):
        return None
    workers = environ.get("TPU_PROCESS_ADDRESSES", environ.get("TPU_WORKER_HOSTNAMES"))
    if workers is None:
        return None if "TPU_SKIP_MDS_QUERY" in environ else "gcetpu"
    return "gketpu" if "," in workers or int(environ.get("MEGASCALE_NUM_SLICES") or 1) > 1 else None


@contextlib.contextmanager
def joined(given: Place | None, own: tuple[type[Exception], ...]) -> Iterator[None]:
    """The run's processes find each other, and leave together.

    Args:
      given: this process's place; None leaves it to the environment.
      own: exceptions that say by themselves what is wrong here; any other may come from a process that is gone.
    """
    cluster = detected(os.environ)
    if given is None and cluster is None:
        yield
        return
    calls = _start(given, cluster)
    try:
        yield
    except Exception as error:
        gone = None if isinstance(error, own) else calls.blame()
        if gone:
            liveness.leave_without(gone)
        calls.fail(f"{type(error).__name__}: {error}")
        raise
    calls.finish()
    jax.distributed.shutdown()


def leave(status: int) -> NoReturn:
    """Exits; after a failure at once, without the farewells of JAX and Orbax: the one waits minutes for processes that
    will not come, the other has the last word about threads that found no room."""
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)
    sys.exit(0)


def _start(given: Place | None, cluster: str | None) -> liveness.RollCall:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM from `signals`
    jax.distributed.initialize(
        coordinator_address=given.coordinator if given else None,
        num_processes=given.processes if given else None,
        process_id=given.process if given else None,
        cluster_detection_method="deactivate" if given else cluster,
        heartbeat_timeout_seconds=_HEARTBEAT,
    )
    process = jax.process_index()
    door = liveness.listen() if process == 0 else None
    hostname = os.uname().nodename.encode()[:_NAME_BYTES].ljust(_NAME_BYTES, b"\0")
    names = multihost_utils.process_allgather(np.frombuffer(hostname, np.uint8))
    port = multihost_utils.broadcast_one_to_all(np.int32(door.getsockname()[1] if door else 0))
    host = str(distributed.global_state.coordinator_address).rpartition(":")[0].strip("[]")
    names = [bytes(name).rstrip(b"\0").decode() for name in np.asarray(names)]
    print(f"process {process} of {len(names)} on {names[process]}, process 0 on {names[0]}", file=sys.stderr)
    return liveness.RollCall(process, names, (host, int(port)), door)


def agree(**texts: str) -> None:
    """Raises ConfigError where the processes were not given the same.

    Args:
      texts: what must be alike, by the name that a message gives it.
    """
    if jax.process_count() == 1:
        return
    ours = np.array([zlib.crc32(text.encode()) for text in texts.values()], np.uint32)
    sums = np.asarray(multihost_utils.process_allgather(ours))
    for name, column in zip(texts, sums.T, strict=True):
        others = np.flatnonzero(column != column[0])
        if len(others):
            raise ConfigError(
                f"process {', '.join(map(str, others))} was given another {name} than process 0; start all "
                "processes with the same settings and the same data"
            )


class Totals:
    """Sums of small whole numbers over all processes, one step late, so that no device is waited for.

    Attributes:
      seen: the sums that were read last, by name.
    """

    def __init__(self, mesh: Mesh):
        self.seen: dict[str, int] = {}
        self._mesh = mesh
        self._held: dict[str, Any] = {}

    def add(self, values: Mapping[str, int]) -> dict[str, Any]:
        """Takes this process's values of the step at hand; reads the sums of the step before into `seen`.

        Returns:
          The sums of this step, device scalars where there are several processes.
        """
        self.read()
        self._held = self._sums(values)
        return self._held

    def read(self) -> None:
        """Reads what was added last."""
        self.seen = {name: int(value) for name, value in jax.device_get(self._held).items()}

    def _sums(self, values: Mapping[str, int]) -> dict[str, Any]:
        if jax.process_count() == 1:
            return dict(values)
        local_DN = np.zeros((len(self._mesh.local_devices), len(values)), np.int32)
        local_DN[0] = list(values.values())
        spread = NamedSharding(self._mesh, P(self._mesh.axis_names))
        sums = _add_up(self._mesh)(jax.make_array_from_process_local_data(spread, local_DN))
        return dict(zip(values, sums, strict=True))


@functools.cache
def _add_up(mesh: Mesh) -> Callable[[jax.Array], tuple[jax.Array, ...]]:
    return jax.jit(lambda x_DN: tuple(x_DN.sum(0)), out_shardings=NamedSharding(mesh, P()))


def rows(spec: P, mesh: Mesh, batch_size: int) -> list[tuple[int, int]]:
    """Ranges [start, stop) of the global batch's images that this process's devices take, in order.

    Args:
      spec: how the batch lies on the mesh.
      mesh: of the whole run.
      batch_size: images in the global batch.
    """
    indices = NamedSharding(mesh, spec).addressable_devices_indices_map((batch_size,)).values()
    ranges: list[tuple[int, int]] = []
    for start, stop in sorted({index[0].indices(batch_size)[:2] for index in indices if index}):
        if ranges and ranges[-1][1] == start:
            start, _ = ranges.pop()
        ranges.append((start, stop))
    return ranges


def of_first(number: int) -> int:
    """Process 0's number, in all processes."""
    return int(multihost_utils.broadcast_one_to_all(np.int32(number)))


def of_first_array(make: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """What process 0 makes, in all processes, bit for bit.

    Args:
      make: f() -> array, called in process 0 alone; the others wait.
      shape: of the array.
      dtype: of the array.
    """
    array = make() if jax.process_index() == 0 else np.zeros(shape, dtype)
    if jax.process_count() == 1:
        return array
    word = np.dtype(f"i{min(np.dtype(dtype).itemsize, 4)}")  # integers: nothing is rounded on the way
    words = np.ascontiguousarray(array, dtype).reshape(-1).view(word)
    return np.asarray(multihost_utils.broadcast_one_to_all(words)).astype(word).view(dtype).reshape(shape)


def say(text: str) -> None:
    """Prints to stderr, in process 0 alone."""
    if jax.process_index() == 0:
        print(text, file=sys.stderr, flush=True)


def share_folder(folder: Path) -> None:
    """Makes a folder that all processes see.

    Raises:
      ConfigError: some do not: it is not on a common file system.
    """
    token = folder / f".seen-{of_first(secrets.randbits(31))}"  # a new name: no file system has cached its absence
    if jax.process_index() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        token.touch()
    multihost_utils.sync_global_devices("folder")
    seen = np.asarray(multihost_utils.process_allgather(np.bool_(token.exists()))).ravel()
    if jax.process_index() == 0:
        token.unlink()
    if not seen.all():
        raise ConfigError(
            f"process {', '.join(map(str, np.flatnonzero(~seen)))} does not see the folder {folder} that process 0 "
            "made; --workdir must lie on a file system that all hosts share"
        )
