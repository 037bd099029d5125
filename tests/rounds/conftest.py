"""Pictures that adaptations and rounds learn from."""

import cv2
import numpy as np
import pytest

PEOPLE, CAMERAS, IMAGES = 10, 2, 4


@pytest.fixture(scope="session")
def people(tmp_path_factory):
    """Tracks of people in colored clothes, named as Market-1501's files are."""
    folder = tmp_path_factory.mktemp("people")
    for person in range(1, PEOPLE + 1):  # 0 is nobody
        clothes = np.random.default_rng(person).integers(0, 256, (2, 3))
        for camera in range(1, CAMERAS + 1):
            for i in range(IMAGES):
                rng = np.random.default_rng([person, camera, i])
                picture = np.full((32, 16, 3), 90, np.uint8)
                picture[4:16, 4:12], picture[16:30, 5:11] = clothes
                picture = np.clip(picture + rng.normal(0, 8, picture.shape), 0, 255).astype(np.uint8)
                cv2.imwrite(str(folder / f"{person:04d}_c{camera}s1_{1000 * person + 10 * i:06d}_01.jpg"), picture)
    return folder
