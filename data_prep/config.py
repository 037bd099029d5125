"""The settings of a data_prep run: one frozen dataclass behind the ConfigDict. Contradictions raise here."""

from __future__ import annotations

from dataclasses import dataclass

from cion_jax.typed import ConfigError, unknown


@dataclass(frozen=True)
class Limits:
    """What decides at the three levels.

    Attributes:
      sigma_cst: consistency limit, a cosine distance in 0 .. 2.
      sigma_drm: discrimination limit, a cosine distance in 0 .. 2.
      r_s: half width of the sliding range of level 3, in tracklets.
    """

    sigma_cst: float
    sigma_drm: float
    r_s: int


# The paper's limits belong to the authors' extractor; any other needs its own.
PRESETS = {"paper": Limits(sigma_cst=0.2, sigma_drm=0.18, r_s=1000)}


@dataclass(frozen=True)
class Config:
    """One run of data_prep; its result is a function of this, the input and the embedder.

    Attributes:
      preset: one of `PRESETS`; gives whatever of the next three is not set.
      sigma_cst, sigma_drm, r_s: see `Limits`.
      seed: of the selection.
      tracks: path of the track text within a sequence, for source `mot`.
      max_tracklet_images: a longer tracklet is thinned evenly before it is embedded.
      min_identity_images: an identity with fewer images is not written.
      max_identity_images: of an identity with more images that many are drawn.
    """

    preset: str = "paper"
    sigma_cst: float | None = None
    sigma_drm: float | None = None
    r_s: int | None = None
    seed: int = 0
    tracks: str | None = None
    max_tracklet_images: int = 100
    min_identity_images: int = 2
    max_identity_images: int = 32

    @property
    def limits(self) -> Limits:
        """The limits in force."""
        preset = PRESETS[self.preset]
        return Limits(
            preset.sigma_cst if self.sigma_cst is None else self.sigma_cst,
            preset.sigma_drm if self.sigma_drm is None else self.sigma_drm,
            preset.r_s if self.r_s is None else self.r_s,
        )

    def validate(self) -> None:
        """Raises ConfigError where a setting is out of its range."""
        if self.preset not in PRESETS:
            raise ConfigError(unknown(f"config.preset={self.preset!r}", self.preset, PRESETS))
        for name in ("sigma_cst", "sigma_drm"):
            value = getattr(self.limits, name)
            if not 0 <= value <= 2:
                raise ConfigError(f"config.{name} is a cosine distance in 0 .. 2, got {value}")
        least = {"r_s": self.limits.r_s, "max_tracklet_images": self.max_tracklet_images}
        for name, value in {**least, "min_identity_images": self.min_identity_images}.items():
            if value < 1:
                raise ConfigError(f"config.{name} must be at least 1, got {value}")
        if self.seed < 0:
            raise ConfigError(f"config.seed must be at least 0, got {self.seed}")
        if self.max_identity_images < self.min_identity_images:
            raise ConfigError(
                f"config.max_identity_images={self.max_identity_images} is below config.min_identity_images="
                f"{self.min_identity_images}; no identity could be written"
            )
