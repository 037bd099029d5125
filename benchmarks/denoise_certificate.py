"""How well the denoising knows how right it is: estimated precision and recall against the truth, in many worlds.

    python -m benchmarks.denoise_certificate --data=MARKET --onnx=FILE --measure=choosing --seeds=0,1,2,3,4
    python -m benchmarks.denoise_certificate --data=MARKET --onnx=FILE --measure=shown --seeds=0,1,2,3,4
    python -m benchmarks.denoise_certificate --write
    python -m benchmarks.denoise_certificate

The first two find identities and what is seen of them without labels, in worlds of `benchmarks.worlds`; what is done
stays done. `--write` makes the reference of `data_prep.denoise.certificate` from the worlds that constants are chosen
on; without it coverage is printed on the worlds that are shown, none of which is in the reference.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks import common, worlds
from benchmarks.denoise_quality import DEFAULT, Case, Ours
from cion_jax.common.progress import progress
from cion_jax.neighbors import linkage, score
from data_prep.denoise import certificate, shared_neighbors
from data_prep.denoise.evidence import NAMES, evidence

INSIDE = 0.9
LARGE = "with 500 tracklets or more"
MORE = tuple(
    replace(world, part=worlds.CHOOSING, features="color", name=f"color, {world.name}")
    for world in worlds.CHOICE
    if world.features == "osnet" and not world.uniforms
)


def measured(case: Case) -> dict:
    """What is seen, and the truth."""
    ours = Ours(case)
    nodes = ours.nodes.normalized(DEFAULT.shared_neighbors.shrinkage, DEFAULT.shared_neighbors.trust)
    cannot = linkage.between(ours.node, ours.cooccurring)

    def identities(rows: np.ndarray) -> np.ndarray:
        return shared_neighbors.cluster(replace(nodes, rows=rows), cannot, cannot, DEFAULT).identity

    found = identities(nodes.rows)
    seen = evidence(nodes, found, identities).values
    scores = score.score(found[ours.node], case.truth)
    raw = score.score(case.tracklet, case.truth)
    return {
        "evidence": [round(value, 5) for value in seen.tolist()],
        "precision": scores["pairwise_precision"],
        "recall": scores["pairwise_recall"],
        "raw": [raw["pairwise_precision"], raw["pairwise_recall"]],
        "tracklets": int(case.tracklet.max()) + 1,
    }


def measure(part: str, seeds: list[int], sources: worlds.Sources, path: Path) -> None:
    """Appends to `path` what it does not have yet, small worlds first."""
    done = {(one["part"], one["world"], one["seed"]) for one in read(path)}
    shown = [world for world in worlds.WORLDS if not world.street]
    listed = shown if part == worlds.SHOWN else (*worlds.CHOICE, *MORE)
    wanted = sorted(((world, seed) for seed in seeds for world in listed), key=lambda each: each[0].people or 1000)
    for world, seed in progress(wanted, "worlds"):
        if (part, world.name, seed) not in done:
            found = {"part": part, "world": world.name, "seed": seed}
            found |= measured(worlds.make(world, sources, seed))
            with path.open("a") as file:
                file.write(json.dumps(found) + "\n")


KERNELS = [
    certificate.Kernel(*numbers)
    for numbers in itertools.product((0.3, 0.5, 0.7, 1, 1.5, 2, 3), (0.5, 1, 1.5, 2, 3), (0.05, 0.1, 0.2, 0.3, 0.5))
]


def reference(found: list[dict]) -> dict:
    """What `data_prep.denoise.certificate` reads: the worlds, and what was chosen on them.

    Kernels by marginal likelihood; intervals are made wider until the truth of worlds that were left out, all seeds of
    a world at a time, lies inside in 90% of them.
    """
    evidence = np.array([one["evidence"] for one in found])
    truth = {name: [round(value, 4) for value in values] for name, values in _truth(found).items()}
    group = np.unique([one["world"] for one in found], return_inverse=True)[1]
    kernels, wider = {}, {}
    for name, values in truth.items():
        shares = np.array(values)
        kernel = max(KERNELS, key=lambda kernel: certificate.Regression(evidence, shares, kernel).likelihood)
        kernels[name], wider[name] = dataclasses.astuple(kernel), _wider(evidence, shares, group, kernel)
    return {"names": NAMES, "kernels": kernels, "wider": wider, **truth, "evidence": evidence.tolist()}


def _wider(evidence: np.ndarray, share: np.ndarray, group: np.ndarray, kernel: certificate.Kernel) -> float:
    for wider in np.arange(1, 4, 0.05):
        inside = []
        for left in np.unique(group):
            kept = group != left
            guessed = certificate.Regression(evidence[kept], share[kept], kernel)(evidence[~kept], float(wider))
            inside += [one.low <= true <= one.high for one, true in zip(guessed, share[~kept], strict=True)]
        if np.mean(inside) >= INSIDE:
            break
    return round(float(wider), 2)


def _truth(found: list[dict]) -> dict[str, list[float]]:
    rows = [(one["precision"], one["recall"], *one["raw"]) for one in found]
    return dict(zip(certificate.TARGETS, map(list, zip(*rows, strict=True)), strict=True))


def coverage(found: list[dict]) -> None:
    """Prints how often the truth lies inside, by world and over all."""
    rows = []
    for name in [*dict.fromkeys(one["world"] for one in found), None, LARGE]:
        some = [one for one in found if name in (None, one["world"]) or (name == LARGE and one["tracklets"] >= 500)]
        if some:
            rows.append((name or "all", str(len(some)), *_row(some)))
    head = [f"{name}, {what}" for name in ("precision", "recall") for what in ("true", "estimated", "inside", "width")]
    common.table(["world", "seeds", *head, "unlike", "harm, told"], rows)


def _row(some: list[dict]) -> list[str]:
    guessed = [certificate.certify(np.array(one["evidence"])) for one in some]
    cells = []
    for name in ("precision", "recall"):
        own, true = [getattr(one, name) for one in guessed], np.array([one[name] for one in some])
        low, value, high = (np.array([getattr(each, part) for each in own]) for part in ("low", "value", "high"))
        inside = (low <= true) & (true <= high)
        cells += [f"{true.mean():.3f}", f"{value.mean():.3f}", f"{inside.mean():.0%}", f"{(high - low).mean():.3f}"]
    harm = [_f1(one["precision"], one["recall"]) < _f1(*one["raw"]) for one in some]
    told = [one.f1 < one.input_f1 for one in guessed]
    right = sum(map(lambda a, b: a and b, harm, told))
    return [*cells, f"{np.mean([one.unlike for one in guessed]):.2f}", f"{sum(harm)}, {sum(told)} ({right})"]


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / max(precision + recall, 1e-9)


def read(path: Path) -> list[dict]:
    """What is measured already."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def main() -> None:
    """Reads the flags."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of Market-1501")
    parser.add_argument("--onnx", help="feature extractor")
    parser.add_argument("--measure", choices=(worlds.SHOWN, worlds.CHOOSING))
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--cache", type=Path, default=Path("runs/denoise_quality"), help="where features are kept")
    args = parser.parse_args()
    path = args.cache / "certificate.jsonl"
    if args.measure:
        sources = worlds.Sources(args.data, args.onnx, args.cache)
        measure(args.measure, [int(seed) for seed in args.seeds.split(",")], sources, path)
        return
    found = read(path)
    if args.write:
        chosen = [one for one in found if one["part"] == worlds.CHOOSING]
        text = json.dumps(reference(chosen), indent=None, separators=(",", ":")).replace("],", "],\n")
        certificate.REFERENCE.write_text(text + "\n")
        return
    common.header("identities that know how right they are")
    coverage([one for one in found if one["part"] == worlds.SHOWN])


if __name__ == "__main__":
    main()
