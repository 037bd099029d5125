"""The settings of a data_prep run: one frozen dataclass behind the ConfigDict. Contradictions raise here."""

from __future__ import annotations

from dataclasses import dataclass

from cion_jax.common.typed_config import ConfigError, unknown

CHAINS, OVERLAP = "chains", "overlap"
COLUMN_ORDERS = ("frame,id", "id,frame")
BOX_FORMS = ("xywh", "xyxy", "cxcywh", "xywhn", "xyxyn", "cxcywhn")


@dataclass(frozen=True)
class Limits:
    """What decides at the three levels.

    Attributes:
      sigma_cst: consistency limit, a cosine distance in 0 .. 2.
      sigma_drm: discrimination limit, a cosine distance in 0 .. 2.
      r_s: half width of the sliding range of level 3, in tracklets; 0: no range.
    """

    sigma_cst: float
    sigma_drm: float
    r_s: int


@dataclass(frozen=True)
class Method:
    """How identities are found. Each of these can be set alone.

    Attributes:
      linkage: "chains" is the published way: images leave their tracklet beyond sigma_cst, and whatever a chain of
        centroids within sigma_drm connects is one identity. "overlap" guards against drift: groups join while their
        members share, on average, enough of their neighborhoods (`denoise.robust`); the sigmas then only measure.
      calibrate: limits that are not set are estimated from the data, without labels (`denoise.calibrate`).
      cannot_link: tracklets that were seen together never become one identity, not even through a chain. Needs a
        source that knows frame numbers.
      normalize: features are made comparable across videos (`denoise.normalize`); for "overlap" only.
      r_s: see `Limits`; "overlap" has no range.
    """

    linkage: str
    calibrate: bool
    cannot_link: bool
    normalize: bool
    r_s: int


PRESETS = {
    "cion_jax": Method(OVERLAP, calibrate=True, cannot_link=True, normalize=True, r_s=0),
    "paper": Method(CHAINS, calibrate=False, cannot_link=False, normalize=False, r_s=1000),
}
# The published limits belong to the authors' extractor.
PUBLISHED = (0.2, 0.18)


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

    first_frame: int | None = None
    box: str | None = None
    classes: str | None = None
    class_column: int | None = None
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
      preset: one of `PRESETS`; gives whatever of `Method` is not set. "paper" is the published method, nothing added.
      linkage, calibrate, cannot_link, normalize, r_s: see `Method`.
      sigma_cst, sigma_drm: see `Limits`; what is set is taken, whatever a calibration would say.
      seed: of the selection.
      tracks: path of the track text within a sequence, for source `mot`; or a folder of texts named by sequence, or a
        path that holds "{sequence}".
      mot, annotations: how these sources read; see `MotConfig` and `AnnotationsConfig`.
      max_tracklet_images: a longer tracklet is thinned evenly before it is embedded.
      blur_faces: faces are blurred in all pictures that are written (`faces`); features are of the crops as they are.
      min_identity_images: an identity with fewer images is not written.
      max_identity_images: of an identity with more images that many are drawn.
    """

    preset: str = "cion_jax"
    linkage: str | None = None
    calibrate: bool | None = None
    cannot_link: bool | None = None
    normalize: bool | None = None
    sigma_cst: float | None = None
    sigma_drm: float | None = None
    r_s: int | None = None
    seed: int = 0
    tracks: str | None = None
    mot: MotConfig = MotConfig()
    annotations: AnnotationsConfig = AnnotationsConfig()
    max_tracklet_images: int = 100
    blur_faces: bool = False
    min_identity_images: int = 2
    max_identity_images: int = 32

    @property
    def method(self) -> Method:
        """The method in force."""
        preset = PRESETS[self.preset]
        linkage = _set(self.linkage, preset.linkage)
        return Method(
            linkage,
            _set(self.calibrate, preset.calibrate),
            _set(self.cannot_link, preset.cannot_link),
            _set(self.normalize, preset.normalize and linkage == OVERLAP),
            _set(self.r_s, preset.r_s if linkage == CHAINS else 0),
        )

    def limits(self, found: tuple[float, float] | None = None) -> Limits:
        """The limits in force: as set, else as `found` by a calibration, else as published."""
        sigma_cst, sigma_drm = found or PUBLISHED
        return Limits(_set(self.sigma_cst, sigma_cst), _set(self.sigma_drm, sigma_drm), self.method.r_s)

    def validate(self) -> None:
        """Raises ConfigError where a setting is out of its range."""
        if self.preset not in PRESETS:
            raise ConfigError(unknown(f"config.preset={self.preset!r}", self.preset, PRESETS))
        if self.linkage not in (None, CHAINS, OVERLAP):
            raise ConfigError(unknown(f"config.linkage={self.linkage!r}", self.linkage, (CHAINS, OVERLAP)))
        for name in ("sigma_cst", "sigma_drm"):
            value = getattr(self.limits(), name)
            if not 0 <= value <= 2:
                raise ConfigError(f"config.{name} is a cosine distance in 0 .. 2, got {value}")
        method = self.method
        if method.linkage == OVERLAP and method.r_s:
            raise ConfigError(f"config.linkage=overlap has no range, got config.r_s={method.r_s}; leave it out")
        if method.linkage == CHAINS and method.normalize:
            raise ConfigError("config.normalize=true goes with config.linkage=overlap only; leave it out")
        least = {"r_s": (0, method.r_s), "seed": (0, self.seed), "max_tracklet_images": (1, self.max_tracklet_images)}
        for name, (lowest, value) in {**least, "min_identity_images": (1, self.min_identity_images)}.items():
            if value < lowest:
                raise ConfigError(f"config.{name} must be at least {lowest}, got {value}")
        self._validate_mot()
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
        if self.mot.first_frame is not None and not 0 <= self.mot.first_frame < 2**31:
            raise ConfigError(f"config.mot.first_frame must be a frame number from 0, got {self.mot.first_frame}")
        if self.mot.class_column is not None and self.mot.class_column < 7:
            raise ConfigError(
                f"config.mot.class_column must be at least 7, behind the box, got {self.mot.class_column}"
            )


def _set(value, default):
    return default if value is None else value
