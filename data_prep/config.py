"""The settings of a data_prep run: one frozen dataclass behind the ConfigDict. Contradictions raise here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from cion_jax.common.bounds import COUNT, SEED, Bounds, between
from cion_jax.common.paths import local_path
from cion_jax.common.typed_config import ConfigError, unknown
from data_prep.denoise.method import METHODS
from data_prep.denoise.settings import (
    CalibrationSettings,
    CooccurrenceSettings,
    Denoising,
    SearchSettings,
    SharedNeighborSettings,
    Thresholds,
)

# What a preset gives to whatever is not set. A method takes of it what it has.
PRESETS: Mapping[str, Denoising] = {
    "cion_jax": Denoising("shared_neighbors", calibrate=True, cannot_link=True, normalize=True, r_s=0),
    "paper": Denoising("published", calibrate=False, cannot_link=False, normalize=False, r_s=1000),
}
COLUMN_ORDERS = ("frame,id", "id,frame")
BOX_FORMS = ("xywh", "xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn")
# The published thresholds belong to the authors' feature extractor.
PUBLISHED = (0.2, 0.18)
_FORMER = {"chains": "published", "overlap": "shared_neighbors"}  # names that methods had


@dataclass(frozen=True)
class MotConfig:
    """How texts of tracks are read, source `mot`; what is not set is found by evidence (`python -m data_prep.doctor`).

    Attributes:
      first_frame: number that the texts give to the first picture or frame of a video, 0 or 1 mostly.
      box: form of the boxes: xywh (left, top, width, height), xyxy (corners), cxcywh (centers); with a final n in
        shares of the frame.
      classes: which classes are people, by number or name, as in "1,2" or "person"; "any": there is no class column.
      class_column: the column of the class, counted from 1; frame and id are the first two.
      order: of the first two columns, "frame,id" or "id,frame".
    """

    first_frame: Annotated[int | None, Bounds(0, 2**31, open_high=True)] = None
    box: str | None = None
    classes: str | None = None
    class_column: Annotated[int | None, between(7, 10_000)] = None  # behind the box
    order: str | None = None


@dataclass(frozen=True)
class AnnotationsConfig:
    """How lists are read, source `annotations`.

    Attributes:
      root: folder that the paths in the list start from; not set: the list's own folder.
    """

    root: str | None = None


@dataclass(frozen=True)
class Config:
    """One run of data_prep; its result is a function of this, the input and the embedder.

    Attributes:
      preset: one of `PRESETS`; gives whatever of the next five is not set. "paper" is the published method, nothing
        added.
      linkage: the denoising method. "published": images leave their tracklet beyond sigma_cst, and whatever a chain of
        centroids within sigma_drm connects is one identity. "shared_neighbors" guards against drift: groups join while
        their members share, on average, enough of their neighborhoods; the sigmas then only measure.
      calibrate: thresholds that are not set are estimated from the data, without labels (`denoise.calibrate`).
      cannot_link: tracklets that co-occur never become one identity, not even through a chain. Needs a source that
        knows frame numbers.
      normalize: features are made comparable across videos (`neighbors.normalization`); for "shared_neighbors" only.
      sigma_cst, sigma_drm: see `Thresholds`; what is set is taken, whatever a calibration would say.
      r_s: see `Thresholds`; for "published" only.
      seed: of the selection.
      tracks: path of the track text within a sequence, for source `mot`; or a folder of texts named by sequence, or a
        path that holds "{sequence}".
      mot, annotations: how these sources read; see `MotConfig` and `AnnotationsConfig`.
      max_tracklet_images: a longer tracklet is thinned evenly before it is embedded.
      blur_faces: faces are blurred in all pictures that are written (`faces`); features are of the crops as they are.
      min_identity_images: an identity with fewer images is not written.
      max_identity_images: of an identity with more images that many are drawn.
      shared_neighbors, cooccurrence, calibration, search: see `denoise.settings`.
    """

    preset: str = "cion_jax"
    linkage: str | None = None
    calibrate: bool | None = None
    cannot_link: bool | None = None
    normalize: bool | None = None
    sigma_cst: Annotated[float | None, between(0, 2)] = None
    sigma_drm: Annotated[float | None, between(0, 2)] = None
    r_s: Annotated[int | None, between(0, 10**9)] = None
    seed: Annotated[int, SEED] = 0
    tracks: str | None = None
    mot: MotConfig = MotConfig()
    annotations: AnnotationsConfig = AnnotationsConfig()
    max_tracklet_images: Annotated[int, COUNT] = 100
    blur_faces: bool = False
    min_identity_images: Annotated[int, COUNT] = 2
    max_identity_images: Annotated[int, COUNT] = 32
    shared_neighbors: SharedNeighborSettings = field(default_factory=SharedNeighborSettings)
    cooccurrence: CooccurrenceSettings = field(default_factory=CooccurrenceSettings)
    calibration: CalibrationSettings = field(default_factory=CalibrationSettings)
    search: SearchSettings = field(default_factory=SearchSettings)

    @property
    def denoising(self) -> Denoising:
        """What is in force: as set, else as the preset and the method have it."""
        preset = PRESETS[self.preset]
        name = _set(self.linkage, preset.method)
        options = METHODS[name].options
        return Denoising(
            name,
            _set(self.calibrate, preset.calibrate),
            _set(self.cannot_link, preset.cannot_link),
            _set(self.normalize, preset.normalize and "normalize" in options),
            _set(self.r_s, preset.r_s if "r_s" in options else 0),
            self.shared_neighbors,
            self.cooccurrence,
            self.calibration,
            self.search,
        )

    def thresholds(self, found: tuple[float, float] | None = None) -> Thresholds:
        """The thresholds in force: as set, else as `found` by a calibration, else as published."""
        sigma_cst, sigma_drm = found or PUBLISHED
        return Thresholds(_set(self.sigma_cst, sigma_cst), _set(self.sigma_drm, sigma_drm), self.denoising.r_s)

    def validate(self) -> None:
        """Raises ConfigError where settings contradict each other, or have a name that does not exist."""
        if self.preset not in PRESETS:
            raise ConfigError(unknown(f"config.preset={self.preset!r}", self.preset, PRESETS))
        if self.linkage in _FORMER:
            raise ConfigError(f"config.linkage={self.linkage!r} is called {_FORMER[self.linkage]!r} now; write that")
        if self.linkage is not None and self.linkage not in METHODS:
            raise ConfigError(unknown(f"config.linkage={self.linkage!r}", self.linkage, METHODS))
        local_path(self.tracks or "", "config.tracks")
        local_path(self.annotations.root or "", "config.annotations.root")
        self._validate_options()
        self._validate_sizes()
        self._validate_mot()

    def _validate_options(self) -> None:
        method = self.denoising.method
        for name in ("normalize", "r_s"):
            if getattr(self.denoising, name) and name not in METHODS[method].options:
                others = ", ".join(other for other in METHODS if name in METHODS[other].options)
                value = getattr(self, name)
                raise ConfigError(
                    f"config.linkage={method} has no {name}, got config.{name}={value}; leave it out, "
                    f"or take config.linkage={others}"
                )

    def _validate_sizes(self) -> None:
        search = self.search
        # Beyond it so many are drawn or looked for.
        _at_least(max(search.noise_sample, search.neighbors + 1), "search.exact_rows", search.exact_rows)
        _at_least(self.calibration.min_pairs, "calibration.max_distances", self.calibration.max_distances)
        if self.max_identity_images < self.min_identity_images:
            raise ConfigError(
                f"config.max_identity_images={self.max_identity_images} is below config.min_identity_images="
                f"{self.min_identity_images}; no identity could be written"
            )

    def _validate_mot(self) -> None:
        if self.mot.box is not None and self.mot.box not in BOX_FORMS:
            raise ConfigError(unknown(f"config.mot.box={self.mot.box!r}", self.mot.box, BOX_FORMS))
        if self.mot.order not in (None, *COLUMN_ORDERS):
            raise ConfigError(unknown(f"config.mot.order={self.mot.order!r}", self.mot.order, COLUMN_ORDERS))


def _at_least(lowest: int, name: str, value: int) -> None:
    if value < lowest:
        raise ConfigError(f"config.{name} must be at least {lowest}, got {value}")


def _set(value: Any, default: Any) -> Any:
    return default if value is None else value
