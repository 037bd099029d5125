"""From tracked people to identity shards: `data_prep.run(...)`, `data_prep.open(FOLDER)`, `python -m data_prep`.

    people = data_prep.run("mot", "videos", "people", embedder="onnx:reid.onnx")
    people.metrics["selection"], people.provenance.to_pandas(), people.show(0)

`data_prep.look("mot", "videos")` says first how an input will be read, and what is wrong with it.

Errors are exceptions; those that the caller can mend are `cion_jax.common.errors.UserError`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_prep.output.dataset import Dataset

__all__ = ["look", "open", "run"]


def run(
    source: str,
    input: str | Path,
    output: str | Path,
    embedder: str | None = None,
    *,
    features: str | Path | None = None,
    cache: str | Path | None = None,
    update: bool = False,
    beam: Sequence[str] = (),
    **config: Any,
) -> Dataset:
    """Finds identities among tracked people and writes them as identity shards.

    The same call again continues a run that was stopped, and returns at once where it is finished. Progress goes to
    stderr, line by line where that is no terminal.

    Args:
      source: format of the input: "mot", "tracklets", "market1501", "annotations" or what is registered.
      input: the input folder, or for annotations the JSON file.
      output: new folder that becomes the data set.
      embedder: feature extractor: "onnx:FILE", "openvino:FILE", "flax:CHECKPOINT", "color" or what is registered.
        Sources that know identities need none.
      features: instead of an embedder: .npz or .parquet with `keys` [N] of images (or paths below the input) and
        `features` [N, d].
      cache: folder of crops and features that runs with other outputs share.
      update: whether an output whose settings or input have changed since is written again.
      beam: flags of Apache Beam, as ("--direct_num_workers=2",).
      **config: settings that are not to be at their defaults, see `data_prep.config.Config`, like `preset="paper"`.
        A group of settings is a dict.

    Returns:
      The data set; its `metrics`, `provenance`, `show(identity)` and `path` say what was done.

    Raises:
      UserError: an input, extractor, output or setting that cannot be used, or nothing is left to write. The message
        says what was expected and what to do; what is done is kept.
    """
    from cion_jax.common.paths import local_path
    from cion_jax.common.typed_config import freeze
    from data_prep.config import Config
    from data_prep.output.dataset import Dataset
    from data_prep.pipeline.run import Job
    from data_prep.pipeline.run import run as run_job

    folder = local_path(str(output), "output")
    job = Job(
        source,
        str(local_path(str(input), "input")),
        embedder,
        folder,
        freeze(Config, config),
        tuple(beam),
        features=None if features is None else str(local_path(str(features), "features")),
        cache=None if cache is None else local_path(str(cache), "cache"),
        update=update,
    )
    run_job(job)
    return Dataset(folder)


def look(source: str, input: str | Path, **config: Any) -> None:
    """Prints how an input will be read and what is wrong with it, as `python -m data_prep.doctor` does.

    Args:
      source, input, **config: as `run` takes them.

    Raises:
      UserError: something in it cannot be decided; the message says what and how to mend it.
    """
    from cion_jax.common.paths import local_path
    from cion_jax.common.typed_config import freeze
    from data_prep import doctor, sources
    from data_prep.config import Config

    options = sources.options(source, freeze(Config, config))
    doctor.tell(sources.open(source, local_path(str(input), "input"), **options))


def open(path: str | Path) -> Dataset:
    """A data set that `run` or `python -m data_prep` has finished; raises UserError where there is none."""
    from cion_jax.common.paths import local_path
    from data_prep.output.dataset import Dataset

    return Dataset(local_path(str(path), "path"))
