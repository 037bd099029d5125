"""Person re-identification (ReID) backbones in JAX: pre-training on people seen in many videos, evaluation, export.

import cion_jax

backbone = cion_jax.load("RUN")  # or "reid.safetensors", "file:resnet50_ibn=FILE.pth"
features = backbone(images)  # [h, w, 3] uint8 RGB each -> [N, d] float32
cion_jax.evaluate(backbone, "market1501", "MARKET")["mAP"]
cion_jax.train("vit_b", "RUN", {"data.path": "DATA"})
cion_jax.export("RUN", "reid.onnx")
cion_jax.adapt("mot", "VIDEOS", "osnet_x0_25=FILE.pth", "OUT")  # better on your cameras, without labels

Errors are exceptions, `cion_jax.UserError` where something that was given cannot be used. Nothing is imported before it
is used, so `import cion_jax` takes no time.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from cion_jax.common.errors import UserError

if TYPE_CHECKING:
    from cion_jax.training.config import RunConfig
    from cion_jax.weights.backbone import Backbone

__version__ = "0.1.0"
__all__ = ["UserError", "adapt", "evaluate", "export", "load", "train"]


def load(
    checkpoint: str | Path,
    *,
    network: Literal["teacher", "student"] = "teacher",
    ignore: Iterable[str] = (),
    batch_size: int = 64,
) -> Backbone:
    """A frozen network, to be called with images.

    Args:
      checkpoint: a training run's folder (its newest checkpoint), one of its `checkpoints/STEP`, a `.safetensors` file
        or folder of `python -m cion_jax.export`, `hf://ORG/NAME` on the Hugging Face Hub,
        `file:NAME[@HEIGHTxWIDTH]=FILE` (PyTorch or safetensors weights of the backbone NAME),
        `random:NAME[@HEIGHTxWIDTH]`, or `mean:A+B` of two of these.
      network: which one of a run or file that holds both.
      ignore: regular expressions of names that a file may lack or have too many.
      batch_size: images that are computed at a time.

    Returns:
      f(images) -> [N, d] float32, not normalized, of any number of [h, w, 3] uint8 RGB images of any sizes; it also has
      `name`, `size` (height, width), `features` (d), `step` and `preprocessing`.

    Raises:
      UserError: no usable weights there.
    """
    from cion_jax.weights import load as weights

    return weights.load(str(checkpoint), network, tuple(ignore), batch_size)


def train(
    config: RunConfig | str | Path,
    workdir: str | Path,
    settings: Mapping[str, Any] | None = None,
    *,
    on_row: Callable[[dict[str, float]], None] | None = None,
) -> Backbone | None:
    """Runs or resumes a training run, as `python -m cion_jax.train` does; rows of measurements go to stderr.

    Args:
      config: a config file, the name of a packaged one ("vit_b", "pretrain:swin_tiny"), or frozen settings.
      workdir: folder of the run. One that already holds checkpoints of the same config is resumed, exactly.
      settings: changes by dotted name, {"data.path": "DATA", "train.steps": 100}; for a config file only.
      on_row: f(row) is called whenever a row of measurements has been written to `workdir/metrics.jsonl`, every
        `train.log_every` steps: {"step": 20, "loss": 6.9, ...}. A notebook draws its curve there.

    Returns:
      The network that the run serves, as `load(workdir)` gives it; None where it was asked to leave before it was done.

    Raises:
      UserError: config, data and workdir do not fit together.
      TrainingStopped, SaveError: the loss is not finite; a checkpoint could not be written.
    """
    from cion_jax.common import packaged_configs
    from cion_jax.common.paths import local_path
    from cion_jax.common.typed_config import ConfigError
    from cion_jax.tasks import freeze
    from cion_jax.train import train as run

    if not isinstance(config, str | Path):
        if settings:
            raise ConfigError(f"settings are changes to a config file, got frozen settings and {dict(settings)}")
        frozen = config
    else:
        name, _, argument = str(config).partition(":")
        frozen = freeze(packaged_configs.load(name, *filter(None, [argument])), settings or {})
    folder = local_path(str(workdir), "workdir")
    return load(folder) if run(frozen, folder, on_row=on_row) else None


def evaluate(backbone: Backbone | str | Path, benchmark: str, data: str | Path, **options: Any) -> dict[str, Any]:
    """Scores a frozen network on a benchmark, as `python -m cion_jax.evaluate` does.

    Args:
      backbone: of `load`, or what it takes.
      benchmark: name of the benchmark, "market1501" or another that is registered.
      data: its folder.
      options: of `cion_jax.evaluate.evaluate`: `metric`, `reranked`, `expansion`.

    Returns:
      Shares between 0 and 1 (`mAP`, `mINP`, `rank1`, ...), counts, and what was left out.

    Raises:
      UserError: there is nothing to score.
    """
    from cion_jax.common.paths import local_path
    from cion_jax.evaluate import evaluate as score
    from cion_jax.reid import benchmarks

    loaded = load(backbone) if isinstance(backbone, str | Path) else backbone
    return score(loaded, benchmarks.load(benchmark, local_path(str(data), "data")), **options)


def export(
    checkpoint: str | Path,
    output: str | Path,
    *,
    network: Literal["teacher", "student"] = "teacher",
    ignore: Iterable[str] = (),
    licence: str = "",
    overwrite: bool = False,
) -> Path:
    """Writes a backbone for other tools, as `python -m cion_jax.export` does.

    Args:
      checkpoint: as `load` takes it; so are network and ignore.
      output: the file; its suffix says the format: `.safetensors`, `.onnx`, `.stablehlo` or `.msgpack`. A name without
        a suffix is that of a folder, which `reid`, timm and trackers load.
      licence: of the weights, for the card.
      overwrite: whether a file or folder that is there may be replaced.

    Returns:
      The model card that was written beside the file, `output`.md, or into the folder, `README.md`.

    Raises:
      UserError: no usable weights, no format of this suffix, the output exists, or it does not come back as what was
        written.
    """
    from cion_jax.common.paths import local_path
    from cion_jax.export import export as write
    from cion_jax.export import export_folder
    from cion_jax.exporting.folder import CARD
    from cion_jax.exporting.formats import of_suffix

    file = local_path(str(output), "output")
    form = of_suffix(file) if file.suffix else ""
    backbone = load(checkpoint, network=network, ignore=ignore)
    origin = {"source": str(checkpoint), "network": network, "licence": licence}
    if not form:
        export_folder(backbone, file, overwrite=overwrite, **origin)
        return file / CARD
    write(backbone, form, file, overwrite=overwrite, **origin)
    return file.with_name(f"{file.name}.md")


def adapt(
    source: str,
    input: str | Path,
    checkpoint: str | Path,
    output: str | Path,
    *,
    data: Mapping[str, Any] | None = None,
    **options: Any,
) -> Backbone:
    """Makes a network better on one's own cameras without labels, as `python -m cion_jax.adapt` does.

    The same call again continues an adaptation that was stopped, and returns at once where it is finished.

    Args:
      source, input: format and folder, as `data_prep.run` takes them.
      checkpoint: "NAME=FILE" or as `load` takes it.
      output: folder of the adaptation; `export/` and `report.html` in it are what it is for.
      data: settings of data_prep that are not to be at their defaults.
      options: of `cion_jax.rounds.run.Job`: `minutes`, `rounds`, `steps`, `config`, `settings`.

    Returns:
      The network that is kept.

    Raises:
      UserError: input, checkpoint, settings and output do not fit together.
      TrainingStopped, SaveError: the loss is not finite; a checkpoint could not be written.
    """
    from cion_jax.adapt import KEPT, job_of
    from cion_jax.adapt import adapt as run
    from cion_jax.common.paths import local_path

    folder = local_path(str(output), "output")
    run(job_of(source, str(input), str(checkpoint), folder, data or {}, **options))
    return load(folder / KEPT)


class _Package(ModuleType):
    """Keeps `adapt`, `train`, `evaluate` and `export` functions when the programs of these names are imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
