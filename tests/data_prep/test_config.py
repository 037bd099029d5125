import pytest

from cion_jax.common.typed_config import ConfigError, freeze
from configs.data_prep import get_config
from data_prep.config import Config, Limits, Method


def test_the_default_needs_no_limit():
    config = freeze(Config, get_config())
    assert config.method == Method("overlap", calibrate=True, cannot_link=True, normalize=True, r_s=0)
    assert config.limits((0.3, 0.1)) == Limits(0.3, 0.1, 0)


def test_the_paper_preset_is_the_published_method():
    config = Config(preset="paper")
    assert config.method == Method("chains", calibrate=False, cannot_link=False, normalize=False, r_s=1000)
    assert config.limits() == Limits(sigma_cst=0.2, sigma_drm=0.18, r_s=1000)


def test_a_setting_overrules_its_preset_alone():
    assert Config(preset="paper", sigma_drm=0.0).limits() == Limits(0.2, 0.0, 1000)
    assert Config(preset="paper", r_s=5).limits() == Limits(0.2, 0.18, 5)
    assert Config(sigma_cst=0.5).limits((0.3, 0.1)) == Limits(0.5, 0.1, 0)
    assert Config(preset="paper", cannot_link=True).method == Method("chains", False, True, False, 1000)
    assert Config(preset="paper", linkage="overlap").method == Method("overlap", False, False, False, 0)
    assert Config(linkage="chains").method == Method("chains", True, True, False, 0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "papers"}, "did you mean 'paper'"),
        ({"linkage": "chain"}, "did you mean 'chains'"),
        ({"sigma_cst": -0.1}, r"config.sigma_cst is a cosine distance in 0 .. 2, got -0.1"),
        ({"sigma_drm": 2.5}, r"config.sigma_drm is a cosine distance"),
        ({"preset": "paper", "r_s": -1}, "config.r_s must be at least 0"),
        ({"r_s": 1000}, "config.linkage=overlap has no range, got config.r_s=1000"),
        ({"preset": "paper", "normalize": True}, "config.normalize=true goes with config.linkage=overlap only"),
        ({"max_tracklet_images": 0}, "config.max_tracklet_images must be at least 1"),
        ({"min_identity_images": 0}, "config.min_identity_images must be at least 1"),
        ({"max_identity_images": 1}, "is below config.min_identity_images=2"),
        ({"seed": -1}, "config.seed must be at least 0"),
        ({"sigma_cts": 0.2}, "did you mean 'sigma_cst'"),
        ({"mot": {"box": "xyxx"}}, "did you mean 'xyxy'"),
        ({"mot": {"first_frame": -1}}, "config.mot.first_frame must be a frame number from 0, got -1"),
        ({"mot": {"class_column": 3}}, "config.mot.class_column must be at least 7"),
        ({"mot": {"order": "id"}}, "did you mean 'id,frame'"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        freeze(Config, settings)
