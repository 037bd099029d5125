"""Seconds and memory of evaluation on one core: `python -m benchmarks.evaluation [--cases=A,B]`.

Synthetic features, 2048 wide, at the sizes of Market-1501 and of MSMT17: people and disturbances are directions in a
space of 64 dimensions. Every case runs in a process of its own with one thread; *peak* is that process's, features
included, *processor s* does not grow when others use the machine. *Product* is the floor of all that starts from
features in float32: the distances alone, a block at a time. The rivals (`evaluation_rivals.py`) do the same in plain
NumPy: whole matrix, rows sorted, dense encodings. At MSMT17's size they would need more than 20 GB, so one gets an
eighth of the queries (its seconds times eight stand beside) and re-ranking has none. *Device* makes the products on the
first device that JAX finds, as `cion_jax.evaluate` does where that is an accelerator; compiling is in its time.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
from absl import app, flags

from benchmarks import evaluation_rivals as rivals
from benchmarks.common import define_names, header, table
from cion_jax.reid import metrics, on_device
from cion_jax.reid.distances import Between, blocks
from cion_jax.reid.rerank import Reranked

SIZES = {"market1501": (3368, 15913, 750, 6), "msmt17": (11659, 82161, 3060, 15)}
WIDTH, LATENT, NOISE = 2048, 64, 1.0
_THREADS = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")


def _draw(g: np.random.Generator, count: int, people: np.ndarray, cameras: int, mixing: np.ndarray) -> tuple:
    """(features, identities, cameras) of `count` images."""
    identity, features = g.integers(0, len(people), count), np.empty((count, WIDTH), np.float32)
    for start in range(0, count, 4096):
        ids = identity[start : start + 4096]
        latent = people[ids] + NOISE * g.standard_normal((len(ids), LATENT), np.float32)
        features[start : start + 4096] = latent @ mixing
    return features, identity, g.integers(0, cameras, count)


def _data(size: str, part: int = 1) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    queries, gallery, people, cameras = SIZES[size]
    g = np.random.default_rng(0)
    mixing = g.standard_normal((LATENT, WIDTH), np.float32)
    centers = g.standard_normal((people, LATENT), np.float32)
    query_QD, query_ids, query_cams = _draw(g, queries // part, centers, cameras, mixing)
    gallery_GD, gallery_ids, gallery_cams = _draw(g, gallery, centers, cameras, mixing)
    return query_QD, gallery_GD, [query_ids, gallery_ids, query_cams, gallery_cams]


def _product(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    for _ in blocks(Between(query_QD, gallery_GD)):
        pass
    return float("nan")


def _ours(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    return metrics.evaluate(Between(query_QD, gallery_GD), metrics.Pairing(*labels)).mean_ap


def _on_device(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    distances = Between(query_QD, gallery_GD, product=on_device.product)
    return metrics.evaluate(distances, metrics.Pairing(*labels)).mean_ap


def _ours_reranked(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    return metrics.evaluate(Reranked(query_QD, gallery_GD), metrics.Pairing(*labels)).mean_ap


def _rival(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    return rivals.evaluate(rivals.distances(query_QD, gallery_GD), *labels)


def _rival_reranked(query_QD: np.ndarray, gallery_GD: np.ndarray, labels: list[np.ndarray]) -> float:
    return rivals.evaluate(rivals.rerank(query_QD, gallery_GD), *labels)


CASES: dict[str, tuple[str, int, Callable]] = {
    "market-product": ("market1501", 1, _product),
    "market": ("market1501", 1, _ours),
    "market-device": ("market1501", 1, _on_device),
    "market-rival": ("market1501", 1, _rival),
    "market-rerank": ("market1501", 1, _ours_reranked),
    "market-rerank-rival": ("market1501", 1, _rival_reranked),
    "msmt17-product": ("msmt17", 1, _product),
    "msmt17": ("msmt17", 1, _ours),
    "msmt17-device": ("msmt17", 1, _on_device),
    "msmt17-rival": ("msmt17", 8, _rival),
    "msmt17-rerank": ("msmt17", 1, _ours_reranked),
}


def _measure(case: str) -> dict:
    size, part, run = CASES[case]
    data = _data(size, part)
    wall, busy = time.perf_counter(), time.process_time()
    mean_ap = run(*data)
    wall, busy = time.perf_counter() - wall, time.process_time() - busy
    return {
        "wall": wall,
        "busy": busy,
        "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
        "mAP": mean_ap,
        "part": part,
    }


def _row(case: str) -> tuple:
    command = [sys.executable, "-m", "benchmarks.evaluation", f"--child={case}"]
    done = subprocess.run(command, env=os.environ | dict.fromkeys(_THREADS, "1"), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return case, "failed", "", "", ""
    found = json.loads(done.stdout)
    times = f" (x {found['part']}: {found['part'] * found['busy']:.0f})" if found["part"] > 1 else ""
    return (
        case,
        f"{found['wall']:.1f}",
        f"{found['busy']:.1f}{times}",
        f"{found['peak']:.2f}",
        "" if np.isnan(found["mAP"]) else f"{found['mAP']:.6f}",
    )


def main(_: list[str]) -> None:
    if flags.FLAGS.child:
        print(json.dumps(_measure(flags.FLAGS.child)))
        return
    header("evaluation from features, one core")
    table(["case", "wall s", "processor s", "peak GB", "mAP"], map(_row, flags.FLAGS.cases))


if __name__ == "__main__":
    define_names("cases", list(CASES), list(CASES), "What to measure.")
    flags.DEFINE_string("child", None, "The one case that this process measures.")
    app.run(main)
