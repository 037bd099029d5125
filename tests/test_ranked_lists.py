"""Pictures of what queries find: which queries, which frames."""

import cv2
import numpy as np
import pytest

from benchmarks import ranked_lists
from cion_jax.evaluate import score
from cion_jax.reid import benchmarks, feature_file
from cion_jax.reid.feature_file import FeatureFile

PEOPLE = range(2, 8)


@pytest.fixture
def networks(tmp_path):
    """Six people, one image each in query and gallery; the first network finds nobody, the second everybody."""
    for person in PEOPLE:
        for folder, camera in (("query", 1), ("bounding_box_test", 2)):
            path = tmp_path / folder / f"{person:04d}_c{camera}s1_000001_01.jpg"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), np.full((32, 16, 3), 255, np.uint8))
    benchmark = benchmarks.load("market1501", tmp_path)
    found, own = {}, np.eye(len(PEOPLE), dtype=np.float32)
    for name, gallery in (("before", -own), ("after", own)):
        paths = [str(path) for part in (benchmark.query, benchmark.gallery) for path in part.paths]
        file = tmp_path / f"{name}.npz"
        feature_file.write(file, paths, np.concatenate([own, gallery]), {})
        found[name] = score(FeatureFile(file), benchmark)
    return found


def test_queries_are_spread_over_the_order(networks):
    scored = networks["after"]
    assert ranked_lists.chosen(scored) == [0, 1, 3, 4, 5]  # 10, 30, 50, 70, 90% of six equally good ones
    scored.scores.ap[:] = [0.6, 0.5, 0.4, 0.3, 0.2, 0.1]
    assert ranked_lists.chosen(scored) == [5, 4, 2, 1, 0]


def test_who_is_found_is_framed_green(networks, tmp_path):
    path = tmp_path / "lists.png"
    ranked_lists.drawn(networks, [0], path)
    picture = cv2.imread(str(path))[..., ::-1].astype(int)

    def frames(color, part):
        wanted = [int(color[at : at + 2], 16) for at in (1, 3, 5)]
        like = (np.abs(part - wanted).max(axis=-1) < 8).astype(np.uint8)
        return cv2.connectedComponents(like, connectivity=8)[0] - 1

    upper, lower = np.array_split(picture, 2)
    assert [frames(ranked_lists.QUERY, part) for part in (upper, lower)] == [1, 1]
    # Each has one right image among six: the first network puts it last, the second first.
    rights = [np.abs(part - [0x2F, 0x9E, 0x75]).max(axis=-1) < 8 for part in (upper, lower)]
    before, after = (np.flatnonzero(right.any(axis=0)).mean() for right in rights)
    assert after < before
    assert [frames(ranked_lists.RIGHT, part) for part in (upper, lower)] == [1, 1]
