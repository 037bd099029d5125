import pytest

from cion_jax.common.typed_config import ConfigError, freeze
from configs.data_prep import get_config
from data_prep.config import Config
from data_prep.denoise.settings import Denoising, Thresholds


def test_the_default_needs_no_threshold():
    config = freeze(Config, get_config())
    assert config.denoising == Denoising("shared_neighbors", calibrate=True, cannot_link=True, normalize=True, r_s=0)
    assert config.thresholds((0.3, 0.1)) == Thresholds(0.3, 0.1, 0)


def test_the_paper_preset_is_the_published_method():
    config = Config(preset="paper")
    assert config.denoising == Denoising("published", calibrate=False, cannot_link=False, normalize=False, r_s=1000)
    assert config.thresholds() == Thresholds(sigma_cst=0.2, sigma_drm=0.18, r_s=1000)


def test_a_setting_overrules_its_preset_alone():
    assert Config(preset="paper", sigma_drm=0.0).thresholds() == Thresholds(0.2, 0.0, 1000)
    assert Config(preset="paper", r_s=5).thresholds() == Thresholds(0.2, 0.18, 5)
    assert Config(sigma_cst=0.5).thresholds((0.3, 0.1)) == Thresholds(0.5, 0.1, 0)
    assert Config(preset="paper", cannot_link=True).denoising == Denoising("published", False, True, False, 1000)
    assert Config(preset="paper", linkage="shared_neighbors").denoising == Denoising(
        "shared_neighbors", False, False, False, 0
    )
    assert Config(linkage="published").denoising == Denoising("published", True, True, False, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "papers"}, "did you mean 'paper'"),
        ({"linkage": "publishes"}, "did you mean 'published'"),
        ({"linkage": "chains"}, "config.linkage='chains' is called 'published' now"),
        ({"linkage": "overlap"}, "config.linkage='overlap' is called 'shared_neighbors' now"),
        ({"sigma_cst": -0.1}, r"config.sigma_cst must be in \[0, 2\], got -0.1"),
        ({"sigma_drm": 2.5}, r"config.sigma_drm must be in \[0, 2\]"),
        ({"preset": "paper", "r_s": -1}, r"config.r_s must be in \[0, "),
        ({"r_s": 1000}, "config.linkage=shared_neighbors has no r_s, got config.r_s=1000; .* config.linkage=published"),
        (
            {"preset": "paper", "normalize": True},
            "config.linkage=published has no normalize, .* or take config.linkage=shared_neighbors",
        ),
        ({"max_tracklet_images": 0}, r"config.max_tracklet_images must be in \[1, "),
        ({"min_identity_images": 0}, r"config.min_identity_images must be in \[1, "),
        ({"max_identity_images": 1}, "is below config.min_identity_images=2"),
        ({"seed": -1}, r"config.seed must be in \[0, "),
        ({"shared_neighbors": {"k1": 0}}, r"config.shared_neighbors.k1 must be in \[1, 10000\], got 0"),
        ({"shared_neighbors": {"agreement": 1.5}}, r"config.shared_neighbors.agreement must be in \[0, 1\], got 1.5"),
        ({"shared_neighbors": {"shrinkage": 0.0}}, r"config.shared_neighbors.shrinkage must be in \(0, "),
        ({"shared_neighbors": {"k3": 1}}, "there is no config.shared_neighbors.k3; did you mean 'k2'"),
        ({"cooccurrence": {"min_frames": 0}}, r"config.cooccurrence.min_frames must be in \[1, "),
        ({"calibration": {"max_distances": 10}}, "config.calibration.max_distances must be at least 30"),
        ({"search": {"exact_rows": 10}}, "config.search.exact_rows must be at least 4096, got 10"),
        ({"sigma_cts": 0.2}, "did you mean 'sigma_cst'"),
        ({"mot": {"box": "xyxx"}}, "did you mean 'xyxy'"),
        ({"mot": {"first_frame": -1}}, "config.mot.first_frame must be in \\[0, .*, got -1"),
        ({"mot": {"class_column": 3}}, "config.mot.class_column must be in \\[7, .*, got 3"),
        ({"mot": {"order": "id"}}, "did you mean 'id,frame'"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        freeze(Config, settings)
