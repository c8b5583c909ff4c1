"""Whether the promise of `vizcomp fit` is kept, and what it costs: redraws of simulated systems
with known risks.

    python benchmarks/fit_guarantee.py                    # 1,000 redraws of each case
    python benchmarks/fit_guarantee.py --draws 100        # a quick look

Each draw runs the search and the certificate of the package itself (`vizcomp.fitting.search`) on
losses drawn for three ladders of eight settings, with a step between each two. A promise is broken
where the certified setting's true risk is above the one asked for. The naive rule beside it takes
the smallest setting whose loss on all the same photos is at most the risk. Bytes are against the
smallest setting that keeps the risk in truth (hindsight): the mean of the ratio, over draws that
certify one that keeps it. Floor: the same of the smallest setting whose true risk is no more than
what the exact test lets pass on all the photos; who certifies less than that was lucky.
"""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from vizcomp.fitting.scores import Aim, Scores, passing, units_to_explore
from vizcomp.fitting.search import Order, certify, explore, seen_of

LADDERS, RUNGS = 3, 8
SIZES = (1.0, 1.1, 1.25)  # of the ladders at equal risk
PARTS = 2  # of the way between two rungs, each a setting that may be tested: 6% of the bytes
CONFIDENCE = 0.95
Array = npt.NDArray[np.float64]
Setting = tuple[int, int]  # a ladder, and its place in it in steps


def risks(shape: str, rng: np.random.Generator, risk: float) -> Array:
    """True risks, (LADDERS, RUNGS * PARTS + 1), from small files to large ones; the last setting
    loses next to nothing."""
    place = np.arange(RUNGS) - rng.uniform(2, 5)
    curve = risk * np.exp(-0.55 * place[None] * np.ones((LADDERS, 1)))
    if shape == "up and down":
        curve *= np.exp(rng.normal(0, 0.5, curve.shape))
    elif shape == "a step":  # just too much, then far too little
        curve = np.where(place[None] < 0, 1.25 * risk, 0.3 * risk) * np.ones((LADDERS, 1))
    curve = np.concatenate([np.minimum(curve, 0.9), np.full((LADDERS, 1), 0.02 * risk)], 1)
    steps = np.arange(RUNGS * PARTS + 1) / PARTS
    return np.exp([np.interp(steps, np.arange(RUNGS + 1), np.log(one)) for one in curve])


def draws_of(kind: str, curve: Array, photos: int, rng: np.random.Generator) -> Array:
    """Losses, (LADDERS, settings, photos): the same photos are hard under every setting."""
    hard = rng.random(photos)
    own = rng.random((*curve.shape, photos))
    ranks = np.where(rng.random((*curve.shape, photos)) < 0.7, hard, own)  # uniform, dependent
    if kind == "changed":
        return (ranks < curve[..., None]).astype(float)
    # F1: a fifth of the box loss on five times as many photos
    share = np.minimum(1, 5 * curve)[..., None]
    return np.where(ranks < share, curve[..., None] / share, 0.0) * (
        0.5 + rng.random((*curve.shape, photos))
    )


def tests_of(order: Order[Setting]) -> list[Setting]:
    """An order with the steps between its rungs, and below the last."""
    tests = list(order.rungs[: order.near + 1])
    for above, one in itertools.pairwise(order.rungs[order.near :]):
        tests += [(one[0], place) for place in range(above[1] - 1, one[1], -1)] + [one]
    ladder, place = order.rungs[-1]
    return tests + [(ladder, below) for below in range(place - 1, max(-1, place - PARTS), -1)]


def one_draw(
    kind: str, shape: str, photos: int, risk: float, rng: np.random.Generator
) -> tuple[float, float, float, float]:
    """True risk over asked of ours, then of the naive rule (0: none chosen), and bytes over
    hindsight's: ours (0: none), and those of the floor."""
    curve = risks(shape, rng, risk)
    losses = draws_of(kind, curve, photos, rng)
    sizes = np.array(SIZES)[:, None] * np.exp(0.12 * np.arange(curve.shape[1]) / PARTS)
    names = [[(ladder, rung * PARTS) for rung in range(RUNGS + 1)] for ladder in range(LADDERS)]
    first = units_to_explore(photos, risk, CONFIDENCE, binary=kind == "changed")
    aim = Aim(risk, CONFIDENCE, photos - first, (kind == "changed",))

    def scores(one: Setting, units: slice) -> Scores:
        part = losses[one][units]
        return Scores(np.full(len(part), sizes[one]), part[None])

    def measure(some: Sequence[Setting], units: range) -> dict[Setting, Scores]:
        return {one: scores(one, slice(units.start, units.stop)) for one in some}

    order, explored = explore(names, first, measure, aim)
    aim = aim.informed(seen_of(order, explored))
    passed = [
        test.setting
        for test in certify(tests_of(order), lambda one: scores(one, slice(first, None)), aim)
        if test.passed
    ]
    naive = np.where(losses.mean(2) <= risk, sizes, np.inf)
    chosen = np.unravel_index(int(naive.argmin()), naive.shape)
    naive_risk = float(curve[chosen] / risk) if np.isfinite(naive.min()) else 0.0
    hindsight = sizes[curve <= risk].min()
    exact = kind == "changed"  # for other losses no such bound is known
    allowed = passing(photos, risk, CONFIDENCE) / photos if exact else risk
    floor = sizes[curve <= max(allowed, float(curve.min()))].min() / hindsight
    if not passed:
        return 0.0, naive_risk, 0.0, float(floor)
    best = min(passed, key=lambda one: sizes[one])
    return float(curve[best] / risk), naive_risk, float(sizes[best] / hindsight), float(floor)


def table(draws: int, say: Callable[[str], None]) -> list[dict[str, object]]:
    """All cases, a row each."""
    rows: list[dict[str, object]] = []
    for kind in ("changed", "1 - F1"):
        for shape in ("falling", "up and down", "a step"):
            for photos, risk in ((300, 0.05), (1000, 0.05), (1000, 0.01)):
                rng = np.random.default_rng(0)
                results = np.array([one_draw(kind, shape, photos, risk, rng) for _ in range(draws)])
                ours, naive, ratio, floor = results.T
                valid = (ratio > 0) & (ours <= 1)
                row = {
                    "loss": kind,
                    "risks": shape,
                    "photos": photos,
                    "risk": risk,
                    "broken": float((ours > 1).mean()),
                    "naive_broken": float((naive > 1).mean()),
                    "nothing": float((ratio == 0).mean()),
                    "bytes_over_hindsight": float(ratio[valid].mean()) if valid.any() else None,
                    "floor": float(floor.mean()),
                }
                rows.append(row)
                cells = [
                    f"{kind:8} {shape:12} {photos:5} {risk:5.0%}",
                    f"broken {row['broken']:6.1%} naive {row['naive_broken']:6.1%}",
                ]
                cells += [
                    f"none {row['nothing']:6.1%}",
                    f"bytes x{row['bytes_over_hindsight'] or 0:.3f} floor x{row['floor']:.3f}",
                ]
                say("  ".join(cells))
    return rows


def main() -> None:
    """Print the table; `--json FILE` writes it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    rows = table(options.draws, print)
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(rows, file, indent=2)


if __name__ == "__main__":
    main()
