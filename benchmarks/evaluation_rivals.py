"""How evaluation is done elsewhere: whole matrices, whole rows sorted, dense encodings. NumPy only."""

from __future__ import annotations

import numpy as np


def distances(query_QD: np.ndarray, gallery_GD: np.ndarray) -> np.ndarray:
    """[Q, G] cosine distances."""
    query_QD = query_QD / np.linalg.norm(query_QD, axis=1, keepdims=True)
    gallery_GD = gallery_GD / np.linalg.norm(gallery_GD, axis=1, keepdims=True)
    return 1 - query_QD @ gallery_GD.T


def evaluate(
    distance_QG: np.ndarray,
    query_ids: np.ndarray,
    gallery_ids: np.ndarray,
    query_cams: np.ndarray,
    gallery_cams: np.ndarray,
) -> float:
    """mAP by sorting all rows at once and a loop over queries, as most evaluations in Python have it."""
    order_QG = np.argsort(distance_QG, axis=1)
    match_QG = (gallery_ids[order_QG] == query_ids[:, None]).astype(np.int32)
    precisions = []
    for query in range(len(query_ids)):
        order = order_QG[query]
        keep = ~((gallery_ids[order] == query_ids[query]) & (gallery_cams[order] == query_cams[query]))
        match = match_QG[query][keep]
        if match.any():
            found = match.cumsum()
            precision = found / (np.arange(len(match)) + 1.0) * match
            precisions.append(precision.sum() / match.sum())
    return float(np.mean(precisions))


def rerank(query_QD: np.ndarray, gallery_GD: np.ndarray, k1: int = 20, k2: int = 6, weight: float = 0.3) -> np.ndarray:
    """[Q, G] k-reciprocal distances (Zhong et al., 2017) with dense encodings and a loop over images."""
    x_ND = np.concatenate([query_QD, gallery_GD])
    distance_NN = distances(x_ND, x_ND) ** 2
    distance_NN /= distance_NN.max(axis=1, keepdims=True)
    order_NN = np.argpartition(distance_NN, range(1, k1 + 1), axis=1)
    encoded_NN = np.zeros_like(distance_NN)
    for i in range(len(x_ND)):
        known = _reciprocal(order_NN, i, k1)
        enlarged = known
        for candidate in known:
            close = _reciprocal(order_NN, candidate, round(k1 / 2))
            if len(np.intersect1d(close, known)) > 2 / 3 * len(close):
                enlarged = np.append(enlarged, close)
        enlarged = np.unique(enlarged)
        closeness = np.exp(-distance_NN[i, enlarged])
        encoded_NN[i, enlarged] = closeness / closeness.sum()
    encoded_NN = np.stack([encoded_NN[order_NN[i, :k2]].mean(axis=0) for i in range(len(x_ND))])
    inverted = [np.flatnonzero(encoded_NN[:, i]) for i in range(len(x_ND))]
    jaccard = np.zeros((len(query_QD), len(x_ND)), np.float32)
    for i in range(len(query_QD)):
        shared = np.zeros(len(x_ND), np.float32)
        for j in np.flatnonzero(encoded_NN[i]):
            shared[inverted[j]] += np.minimum(encoded_NN[i, j], encoded_NN[inverted[j], j])
        jaccard[i] = 1 - shared / (2 - shared)
    mixed = jaccard * (1 - weight) + distance_NN[: len(query_QD)] * weight
    return mixed[:, len(query_QD) :]


def _reciprocal(order_NN: np.ndarray, i: int, k: int) -> np.ndarray:
    forward = order_NN[i, : k + 1]
    return forward[np.flatnonzero((order_NN[forward, : k + 1] == i).any(axis=1))]
