"""How often the test of a certificate passes losses of a known mean, beside other tests.

Losses are drawn: of a detector (those above 0 are the ones that `yolox_nano` had under AVIF of
quality 96 on 342 photos), changed answers, a fifth to a half, a tenth, and small ones on every
photo. Columns: the bets as they are; with the heights of such losses known; the best bets of all
for just this distribution, by dynamic programming over the capital; the exact binomial test of
losses that are rounded at random to 0 or 1; and an approximation by the normal distribution, which
is no valid test.

    python benchmarks/fit_bets.py                                  # risk 5%, 342 photos
    python benchmarks/fit_bets.py --risk 0.01 --photos 877 --means 0.003,0.006,0.01
"""

from __future__ import annotations

import argparse

import numpy as np
import numpy.typing as npt

from vizcomp.fitting import bets
from vizcomp.fitting.scores import passing

Array = npt.NDArray[np.float64]
CONFIDENCE = 0.95
# sizes of losses above 0, and how many of each
KINDS = {
    "detector": (
        (0.053, 0.067, 0.077, 0.091, 0.111, 0.143, 0.2, 0.25, 1 / 3, 1.0),
        (1, 1, 1, 2, 1, 2, 5, 1, 3, 5),
    ),
    "changed": ((1.0,), (1,)),
    "a fifth to a half": ((0.2, 0.33, 0.5), (1, 1, 1)),
    "a tenth": ((0.1,), (1,)),
}
CAPITALS, STAKES = 200, 24  # of the dynamic programming


def best_bets(sizes: Array, shares: Array, often: float, photos: int, risk: float) -> float:
    """The most that any bets pass of losses that are above 0 so often."""
    capital = np.linspace(0, 1, CAPITALS) ** 1.5  # as a share of the goal
    most = np.minimum(capital / (1 - risk), (1 - capital) / risk)
    stakes = most[:, None] * np.linspace(0, 1, STAKES)
    value = (capital == 1).astype(float)
    for _ in range(photos):
        gained = np.interp(capital[:, None] + stakes * risk, capital, value)
        ways = (1 - often) * gained
        for size, share in zip(sizes, shares, strict=True):
            after = np.maximum(0, capital[:, None] + stakes * (risk - size))
            ways += often * share * np.interp(after, capital, value)
        value = ways.max(1)
    return float(np.interp(1 - CONFIDENCE, capital, value))


def one_row(kind: str, mean: float, photos: int, risk: float, samples: int) -> list[float]:
    """Shares that pass: the bets, with heights known, best bets, exact after rounding, normal."""
    rng = np.random.default_rng(0)
    level = 1 - CONFIDENCE
    if kind == "small":
        losses = rng.beta(2, 2 * (1 - mean) / mean, (samples, photos))
        best = float("nan")
        heights = (photos * mean / 4, float((losses**2).mean()) * photos / 4)
    else:
        sizes, counts = (np.array(one, float) for one in KINDS[kind])
        shares = counts / counts.sum()
        often = mean / float(sizes @ shares)
        hit = rng.random((samples, photos)) < often
        losses = np.where(hit, rng.choice(sizes, hit.shape, p=shares), 0.0)
        best = best_bets(sizes, shares, often, photos, risk)
        heights = (photos * mean / 4, photos * often * float(sizes**2 @ shares) / 4)
    passed = [
        np.mean([bets.betting_p_value(one, risk, CONFIDENCE, seen) <= level for one in losses])
        for seen in (bets.NOTHING, heights)
    ]
    rounded = (rng.random(losses.shape) < losses).sum(1)
    exact = (rounded <= passing(photos, risk, CONFIDENCE)).mean()
    normal = losses.mean(1) + 1.645 * losses.std(1) / photos**0.5 < risk
    return [*map(float, passed), best, float(exact), float(normal.mean())]


def main() -> None:
    """Print a row for each kind of loss and mean."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--risk", type=float, default=0.05)
    parser.add_argument("--photos", type=int, default=342)
    parser.add_argument("--means", default="0.025,0.03,0.036,0.05")
    parser.add_argument("--samples", type=int, default=2000)
    options = parser.parse_args()
    print("losses, mean: bets; heights known; best bets; exact after rounding; normal")
    for kind in (*KINDS, "small"):
        for mean in map(float, options.means.split(",")):
            row = one_row(kind, mean, options.photos, options.risk, options.samples)
            print(f"{kind}, {mean}: " + "; ".join(f"{share:.1%}" for share in row), flush=True)


if __name__ == "__main__":
    main()
