import pytest

from cion_jax.typed import ConfigError, freeze
from configs.data_prep import get_config
from data_prep.config import Config, Limits


def test_the_paper_preset():
    assert freeze(Config, get_config()).limits == Limits(sigma_cst=0.2, sigma_drm=0.18, r_s=1000)


def test_a_setting_overrules_its_preset_alone():
    assert Config(sigma_drm=0.0).limits == Limits(0.2, 0.0, 1000)
    assert Config(r_s=5).limits == Limits(0.2, 0.18, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "papers"}, "did you mean 'paper'"),
        ({"sigma_cst": -0.1}, r"config.sigma_cst is a cosine distance in 0 .. 2, got -0.1"),
        ({"sigma_drm": 2.5}, r"config.sigma_drm is a cosine distance"),
        ({"r_s": 0}, "config.r_s must be at least 1"),
        ({"max_tracklet_images": 0}, "config.max_tracklet_images must be at least 1"),
        ({"min_identity_images": 0}, "config.min_identity_images must be at least 1"),
        ({"max_identity_images": 1}, "is below config.min_identity_images=2"),
        ({"seed": -1}, "config.seed must be at least 0"),
        ({"sigma_cts": 0.2}, "did you mean 'sigma_cst'"),
    ],
)
def test_what_cannot_be_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        freeze(Config, settings)
