"""Runs a stage over all videos as an Apache Beam transform, with progress, keeping what is done."""

from __future__ import annotations

import contextlib
import functools
import io
import logging
import threading
import time
import traceback
import unittest.mock
from collections.abc import Callable, Container, Iterator, Sequence
from pathlib import Path

from cion_jax.common import extras
from cion_jax.common.errors import UserError
from cion_jax.common.progress import progress
from data_prep.pipeline.workdir import Work

logging.disable(logging.WARNING)  # Beam remarks on Google Cloud libraries that are not there
with extras.needed("data_prep", "prep"):
    import apache_beam as beam
    from apache_beam.options.pipeline_options import DirectOptions, PipelineOptions, StandardOptions
    from apache_beam.runners.portability.fn_api_runner import FnApiRunner
    from apache_beam.utils import interactive_utils
logging.disable(logging.NOTSET)

LOCAL = (None, "DirectRunner", "FnApiRunner")  # names under which everything runs on this machine
_POLL = 0.2  # seconds between two looks at how many videos are done, at least
_LOOKING = 0.05  # share of the time that may be spent looking


class RunError(UserError):
    """The run cannot go on; what is done is kept."""


def split_flags(arguments: Sequence[str], known: Container[str]) -> tuple[list[str], list[str]]:
    """Parts a command line at `--` into what is ours and what is Apache Beam's.

    Args:
      arguments: the command line, without the program's name.
      known: names of our own flags.

    Returns:
      What stands before `--`, and what stands after it.

    Raises:
      RunError: a flag of Beam before `--`; something after it that is none, or that is not spelled `--name=value`.
    """
    at = arguments.index("--") if "--" in arguments else len(arguments)
    ours, beams = list(arguments[:at]), list(arguments[at + 1 :])
    early = [argument for argument in ours if _name(argument) not in known and _is_beams(argument)]
    if early:
        raise RunError(
            f"{early[0]} is a flag of Apache Beam; these come after --, behind all others: "
            f"python -m data_prep ... -- {' '.join([*early, *beams])}"
        )
    for argument in beams:
        if not _is_beams(argument):
            raise RunError(_no_flag(argument, known))
    return ours, beams


def _no_flag(argument: str, known: Container[str]) -> str:
    if _name(argument.split(".")[0]) in known:
        return f"{argument} is a flag of data_prep; these come before --, which only flags of Apache Beam come after"
    return f"Apache Beam has no flag {argument!r}; after -- come its flags, spelled --name=value"


def options(flags: Sequence[str]) -> PipelineOptions:
    """What these flags of Beam say; several workers are processes unless they are asked to be threads.

    Diverts stderr for a moment, so not to be called beside a thread that writes to it.

    Raises:
      RunError: a value that Beam does not take.
    """
    words = io.StringIO()
    try:
        with contextlib.redirect_stderr(words):
            found = PipelineOptions(list(flags))
            found.get_all_options()
    except SystemExit as error:  # argparse's answer to a value of the wrong kind
        raise RunError(f"Apache Beam: {_last_line(words.getvalue())}") from error
    direct = found.view_as(DirectOptions)
    if direct.direct_num_workers != 1 and direct.direct_running_mode == "in_memory":
        direct.direct_running_mode = "multi_processing"
    return found


def _name(argument: str) -> str:
    return argument.removeprefix("--").split("=")[0]


def _is_beams(argument: str) -> bool:
    """Whether this is a whole flag of Beam, `--name=value` or a bare `--name`."""
    if not argument.startswith("--") or not _name(argument):
        return False
    logging.disable(logging.WARNING)  # it remarks on what it does not know
    try:
        found = options([argument]).get_all_options(drop_default=True)
    except RunError:
        return True
    finally:
        logging.disable(logging.NOTSET)
    return bool(found) or _name(argument) in options([]).get_all_options()


def each_video(
    what: str,
    work: Work,
    videos: Sequence[str],
    kind: str,
    prepare: Callable[[], Callable[[str], None]],
    flags: Sequence[str] = (),
) -> None:
    """Runs a stage over the videos that have no `kind` file yet.

    Args:
      what: beginning of the progress line.
      work: where the files are; progress is read off them, so it needs nothing of the runner.
      videos: their keys, all that crosses the border of the stage.
      kind: of the file that a finished video has.
      prepare: called once per worker, gives the function that does one video. Must pickle.
      flags: of Beam, such as `--runner=...`; none: one worker within this process.

    Raises:
      RunError: videos failed; the message has the first reason, the work folder all of them.
    """
    todo = [video for video in videos if not work.holds(video, kind)]
    if not todo:
        return
    for video in todo:
        work.file(video, "failed").unlink(missing_ok=True)
    beside = _Background(functools.partial(_beam, todo, functools.partial(_Task, prepare, work), options(flags)))
    for _ in progress(_appearing([work.file(video, kind) for video in todo], beside), what, len(todo)):
        pass
    if beside.error is not None:
        why = _last_line("".join(traceback.format_exception_only(beside.error)))
        raise RunError(f"{what} stopped: {why}; what is done is kept") from beside.error
    failed = [video for video in todo if not work.file(video, kind).exists()]
    if failed:
        reason = work.file(failed[0], "failed")
        why = _last_line(reason.read_text("utf-8") if reason.exists() else "")
        raise RunError(
            f"{what} failed for {len(failed)} of {len(todo)} videos, first {failed[0]!r}: {why}; the rest is kept. "
            f"Tracebacks are in {work.folder}/*.failed; the same command tries again"
        )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no reason is known"])[-1]


class _Task:
    """A stage on one worker: one bad video does not stop the others."""

    def __init__(self, prepare: Callable[[], Callable[[str], None]], work: Work):
        self._work, self._stage = work, prepare()

    def __call__(self, video: str) -> None:
        try:
            self._stage(video)
        except Exception:
            self._work.file(video, "failed").write_text(traceback.format_exc(), "utf-8", "backslashreplace")


def _beam(videos: Sequence[str], make_task: Callable[[], Callable[[str], None]], wanted: PipelineOptions) -> None:
    """Runs a task over videos. The local runner is named: DirectRunner would first try to download another one."""
    runner = FnApiRunner() if wanted.view_as(StandardOptions).runner in LOCAL else None
    with _as_a_program(), beam.Pipeline(runner=runner, options=wanted) as pipeline:
        _ = pipeline | beam.Create(videos) | beam.Reshuffle() | beam.ParDo(_EachVideo(make_task))


@contextlib.contextmanager
def _as_a_program() -> Iterator[None]:
    """Beam does not see that it is in a notebook: there it names the parts of a pipeline by cell, imports pandas to do
    so, which it does not depend on, and leaves its temporary folder behind."""
    with (
        unittest.mock.patch.object(interactive_utils, "is_in_ipython", return_value=False),
        unittest.mock.patch.object(beam.pipeline, "is_in_ipython", return_value=False),
    ):
        yield


class _EachVideo(beam.DoFn):
    def __init__(self, make_task: Callable[[], Callable[[str], None]]):
        self._make_task = make_task

    def setup(self) -> None:
        self._task = self._make_task()

    def process(self, video: str) -> None:
        self._task(video)


class _Background(threading.Thread):
    """Runs a call beside the progress line; as a daemon, so that an interrupt ends the program at once."""

    def __init__(self, call: Callable[[], None]):
        super().__init__(daemon=True)
        self._call = call
        self.error: BaseException | None = None
        self.start()

    def run(self) -> None:
        try:
            self._call()
        except BaseException as error:
            self.error = error


def _appearing(files: Sequence[Path], beside: threading.Thread) -> Iterator[Path]:
    """Yields files as they appear, until all are there or the thread has ended."""
    missing, alive = list(files), True
    while missing and alive:
        alive, start = beside.is_alive(), time.monotonic()
        found = {path for path in missing if path.exists()}
        missing = [path for path in missing if path not in found]
        pause = max(_POLL, (time.monotonic() - start) / _LOOKING)
        yield from found
        beside.join(pause)
    beside.join()
