"""The denoiser spelled out from its definition, image by image and pair by pair: slow, and nothing shared."""

import itertools
import math

import numpy as np
from hypothesis import strategies as st


def mean(vectors):
    return [math.fsum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def normalized(v):
    v = [float(a) for a in v]
    length = math.sqrt(math.fsum(a * a for a in v))
    return [a / length if length > 1e-6 else 0.0 for a in v]


def dist(a, b):
    a, b = normalized(a), normalized(b)
    return round(1 - math.fsum(x * y for x, y in zip(a, b, strict=True)), 9)


def connected(count, edges):
    """Labels by flooding, numbered by the first node."""
    labels = [None] * count
    for number, node in enumerate(range(count)):
        todo = [node] if labels[node] is None else []
        while todo:
            at = todo.pop()
            if labels[at] is None:
                labels[at] = number
                todo += [b if a == at else a for a, b in edges if at in (a, b)]
    order = list(dict.fromkeys(labels))
    return [order.index(label) for label in labels]


def level1(features, sigma):
    """[(round or 0)] of one tracklet, and the distance at which every excluded image left."""
    x = [normalized(f) for f in features]
    inside, rounds, left = list(range(len(x))), [0] * len(x), {}
    for number in itertools.count(1):
        if len(inside) == 1:
            return rounds, left
        apart = {i: dist(x[i], mean([x[j] for j in inside if j != i])) for i in inside}
        worst = max(inside, key=lambda i: (apart[i], i))
        if apart[worst] < sigma:
            return rounds, left
        inside.remove(worst)
        rounds[worst], left[worst] = number, apart[worst]
    return None


def centroid(features, labels, k):
    return mean([normalized(f) for f, label in zip(features, labels, strict=True) if label == k])


def level2a(features, tracklet, keep, sigma):
    cores = [t if k else -1 for t, k in zip(tracklet, keep, strict=True)]
    centers = {t: centroid(features, cores, t) for t in set(tracklet)}
    result, nearest = list(tracklet), {}
    for i, own in enumerate(tracklet):
        if not keep[i]:
            others = [(dist(features[i], c), t) for t, c in centers.items() if t != own]
            nearest[i], target = min(others, default=(math.nan, -1))
            result[i] = target if nearest[i] < sigma else -1
    return result, nearest


def linked(centers, sigma, reach):
    pairs = itertools.combinations(range(len(centers)), 2)
    return [(i, j) for i, j in pairs if j - i <= reach and dist(centers[i], centers[j]) <= sigma]


def level2b(features, tracklet, sigma):
    centers = [centroid(features, tracklet, t) for t in range(max(tracklet, default=-1) + 1)]
    identity = connected(len(centers), linked(centers, sigma, len(centers)))
    return [identity[t] if t >= 0 else -1 for t in tracklet]


def noise(features, labels, sigma_cst, sigma_drm):
    names = sorted(set(labels) - {-1})
    centers = {k: centroid(features, labels, k) for k in names}
    cst = sum(
        max(dist(f, centers[k]) for f, label in zip(features, labels, strict=True) if label == k) >= sigma_cst
        for k in names
    )
    drm = sum(dist(centers[a], centers[b]) <= sigma_drm for a, b in itertools.permutations(names, 2))
    return cst, drm


def pairwise(labels, truth):
    same = [(i, j) for i, j in itertools.combinations(range(len(labels)), 2)]
    grouped = {(i, j) for i, j in same if labels[i] == labels[j] != -1}
    wanted = {(i, j) for i, j in same if truth[i] == truth[j] != -1}
    ratio = lambda whole: len(grouped & wanted) / len(whole) if whole else 1.0  # noqa: E731
    return ratio(grouped), ratio(wanted)


def bcubed(labels, truth):
    def cluster(values, i):
        return {j for j, v in enumerate(values) if j == i or v == values[i] != -1}

    groups = [(cluster(labels, i), cluster(truth, i)) for i in range(len(labels))]
    return tuple(sum(len(both[0] & both[1]) / len(both[side]) for both in groups) / len(groups) for side in (0, 1))


@st.composite
def videos(draw, least=1):
    """One video: features [m, 3] with many exact ties, and tracklets 0, 0, 1, ... in order."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=least, max_size=5))
    tracklet = np.repeat(np.arange(len(sizes)), sizes)
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    palette = rng.standard_normal((draw(st.integers(1, 6)), 3))
    if draw(st.booleans()):  # right angles, opposites and angles whose cosine is exactly 0.6, 0.8
        palette = np.array([[1, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [-1, 0, 0], [0.8, 0.6, 0], [0, 0.6, 0.8]])
    features = palette[rng.integers(0, len(palette), len(tracklet))]
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return features.astype(np.float32), tracklet


thresholds = st.sampled_from([0.0, 0.05, 0.1, 0.2, 0.4, 0.7, 1.0, 2.0])
