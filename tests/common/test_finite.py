"""NaN and infinity are named, in features and where `embed` would write them."""

import types

import cv2
import numpy as np
import pytest

from cion_jax import embed
from cion_jax.common.finite import NotFiniteError, check_finite, not_finite


def test_names_of_what_is_not_finite():
    good, nan, inf = np.ones(3), np.array([1, np.nan]), np.array([[1], [-np.inf]])
    assert not_finite({"a": good, "b": nan, "c": inf, "d": np.zeros(0), "e": np.arange(3)}) == ["b", "c"]


def test_images_whose_features_are_not_finite():
    features = np.ones((9, 2), np.float32)
    keys = [f"{i}.jpg" for i in range(9)]
    check_finite(features, keys)
    check_finite(np.zeros((0, 2)), [])
    features[1:8, 1] = np.nan
    with pytest.raises(NotFiniteError, match=r"7 of 9 images are not finite: 1\.jpg, .*, 5\.jpg and 2 more"):
        check_finite(features, keys)


def test_embed_writes_no_such_features(tmp_path, monkeypatch):
    class Broken:
        name, step, size, features = "broken", None, (4, 4), 2

        def digest(self):
            return ""

        def __call__(self, images):
            return np.array([[1.0, np.inf] if image.mean() > 100 else [1.0, 2.0] for image in images], np.float32)

    for name, grey in (("dark", 10), ("light", 200)):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.full((4, 4, 3), grey, np.uint8))
    args = {"input": str(tmp_path), "output": str(tmp_path / "f.npz"), "normalize": False, "checkpoint": "x"}
    args |= {"overwrite": False, "network": "teacher", "ignore": [], "flip": False, "source": None}
    args |= {"source_setting": []}
    monkeypatch.setattr(embed.flags, "FLAGS", types.SimpleNamespace(**args))
    monkeypatch.setattr(embed, "extractor_of_flags", Broken)
    monkeypatch.setattr(embed, "adaptation_of_flags", lambda extractor: None)
    with pytest.raises(NotFiniteError, match=r"1 of 2 images are not finite: .*light\.png"):
        embed.main([])
    assert not (tmp_path / "f.npz").exists()
