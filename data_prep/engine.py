"""Runs a stage over all videos as an Apache Beam transform, with progress, keeping what is done."""

from __future__ import annotations

import functools
import logging
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from cion_jax.progress import progress
from data_prep.work import Work

logging.disable(logging.WARNING)  # Beam remarks on Google Cloud libraries that are not there
import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402
from apache_beam.runners.portability.fn_api_runner import FnApiRunner  # noqa: E402

logging.disable(logging.NOTSET)

_POLL = 0.2  # seconds between two looks at how many videos are done


class RunError(ValueError):
    """The run cannot go on; what is done is kept."""


def each_video(
    what: str, work: Work, videos: Sequence[str], kind: str, prepare: Callable[[], Callable[[str], None]]
) -> None:
    """Runs a stage over the videos that have no `kind` file yet.

    Args:
      what: beginning of the progress line.
      work: where the files are; progress is read off them, so it needs nothing of the runner.
      videos: their keys, all that crosses the border of the stage.
      kind: of the file that a finished video has.
      prepare: called once per worker, gives the function that does one video. Must pickle.

    Raises:
      RunError: videos failed; the message has the first reason, the work folder all of them.
    """
    todo = [video for video in videos if not work.file(video, kind).exists()]
    if not todo:
        return
    for video in todo:
        work.file(video, "failed").unlink(missing_ok=True)
    beside = _Background(functools.partial(_beam, todo, functools.partial(_Task, prepare, work)))
    for _ in progress(_appearing([work.file(video, kind) for video in todo], beside), what, len(todo)):
        pass
    if beside.error is not None:
        raise RunError(f"{what} stopped: {_last_line(str(beside.error))}; what is done is kept") from beside.error
    failed = [video for video in todo if not work.file(video, kind).exists()]
    if failed:
        why = _last_line(work.file(failed[0], "failed").read_text())
        raise RunError(
            f"{what} failed for {len(failed)} of {len(todo)} videos, first {failed[0]!r}: {why}; the rest is kept. "
            f"Tracebacks are in {work.folder}/*.failed; the same command tries again"
        )


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1]


class _Task:
    """A stage on one worker: one bad video does not stop the others."""

    def __init__(self, prepare: Callable[[], Callable[[str], None]], work: Work):
        self._work, self._stage = work, prepare()

    def __call__(self, video: str) -> None:
        try:
            self._stage(video)
        except Exception:
            self._work.file(video, "failed").write_text(traceback.format_exc())


def _beam(videos: Sequence[str], make_task: Callable[[], Callable[[str], None]]) -> None:
    """Runs a task over videos. The runner is named: DirectRunner would first try to download another one."""
    with beam.Pipeline(runner=FnApiRunner(), options=PipelineOptions([])) as pipeline:
        _ = pipeline | beam.Create(videos) | beam.Reshuffle() | beam.ParDo(_EachVideo(make_task))


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
        alive = beside.is_alive()
        found = [path for path in missing if path.exists()]
        yield from found
        missing = [path for path in missing if path not in set(found)]
        beside.join(_POLL)
    beside.join()
