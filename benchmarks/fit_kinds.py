"""What settings by what a photo costs could save, from the answers that a fit remembers.

The memory of a fit (`fit/*.sqlite` in the cache folder, as `fit_pays.py` leaves it) has bytes and
how far answers moved, for each photo and setting. Photos are sorted by their bytes under the
largest setting of a ladder, in classes of equal number; each class has its own quality, or all
have one cap of their bytes, such that answers move as far in the mean as with one quality for all.
It is judged on the very photos that chose: an upper bound. Losses are too few for it.

    python benchmarks/fit_kinds.py CACHE/fit/KEY.sqlite --seen 86
"""

from __future__ import annotations

import argparse
import collections
import itertools
import json
import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

FEWEST = 3  # rungs of a ladder
STEPS = 13  # qualities of a ladder, between its rungs by straight lines
HALVINGS = 40
PLACES = (3, 6, 9)  # of these, the one quality for all


def ladders_of(path: Path, photos: int) -> dict[str, tuple[list[float], Array, Array]]:
    """Of each ladder of djpeg's settings the qualities, and (qualities, photos) of bytes and of how
    far answers moved, on the photos that were seen under the most settings."""
    base = sqlite3.connect(path)
    rows: dict[str, dict[str, tuple[float, float]]] = collections.defaultdict(dict)
    for photo, setting, row in base.execute("SELECT photo, setting, row FROM rows"):
        if setting.startswith("{"):
            verdict = json.loads(row)
            rows[setting][photo] = (verdict["size"], verdict["soft"][0])
    often = collections.Counter(photo for one in rows.values() for photo in one)
    some = [photo for photo, _ in often.most_common(photos)]
    families: dict[str, dict[float, str]] = collections.defaultdict(dict)
    for setting, one in rows.items():
        values = json.loads(setting)
        if "guide" in values and values["quality"] < 100 and all(photo in one for photo in some):
            quality = values.pop("quality")
            families[json.dumps(values, sort_keys=True)][quality] = setting
    found = {}
    for family, settings in families.items():
        if len(settings) >= FEWEST:
            qualities = sorted(settings)
            table = np.array([[rows[settings[q]][photo] for photo in some] for q in qualities])
            found[family] = (qualities, table[..., 0], table[..., 1])
    return found


def finer(qualities: list[float], table: Array) -> Array:
    """(STEPS, photos), between the rungs by straight lines."""
    at = np.linspace(qualities[0], qualities[-1], STEPS)
    return np.array([np.interp(at, qualities, column) for column in table.T]).T


def classes_of(sizes: Array, edges: Array) -> Array:
    """(classes, photos) of 0 and 1, by bytes under the largest setting."""
    own = np.searchsorted(edges, sizes[-1], side="right")
    return np.array([own == one for one in range(len(edges) + 1)], float)


def best_of(sizes: Array, moved: Array, place: int, classes: int) -> tuple[Array, tuple[int, ...]]:
    """Edges of the classes, and the best quality of each; what a class moves never rises with the
    quality."""
    edges = np.quantile(sizes[-1], np.arange(1, classes) / classes)
    members = classes_of(sizes, edges)
    costs = members @ sizes.T
    falls = np.maximum.accumulate((members @ moved.T)[:, ::-1], 1)[:, ::-1]
    each = np.arange(classes)
    most = falls[:, place].sum()
    every = itertools.product(range(STEPS), repeat=classes)
    allowed = [one for one in every if falls[each, one].sum() <= most + 1e-12]
    return edges, min(allowed, key=lambda one: float(costs[each, one].sum()))


def applied(sizes: Array, moved: Array, edges: Array, own: tuple[int, ...]) -> tuple[float, float]:
    """Mean bytes and movement with a quality for each class."""
    members = classes_of(sizes, edges)
    return tuple(
        float((members * table[list(own)]).sum() / sizes.shape[1]) for table in (sizes, moved)
    )  # type: ignore[return-value]


def honest(sizes: Array, moved: Array, place: int, classes: int) -> float:
    """Bytes by class over those of one quality that moves as far, on the photos that did not
    choose: geometric mean."""
    rng = np.random.default_rng(0)
    logs = []
    for _ in range(HALVINGS):
        drawn = rng.permutation(sizes.shape[1])
        first, second = drawn[: len(drawn) // 2], drawn[len(drawn) // 2 :]
        edges, own = best_of(sizes[:, first], moved[:, first], place, classes)
        cost, far = applied(sizes[:, second], moved[:, second], edges, own)
        curve = np.minimum.accumulate(moved[:, second].mean(1))
        alike = np.interp(far, curve[::-1], np.log(sizes[:, second].mean(1))[::-1])
        logs.append(np.log(cost) - alike)
    return float(np.exp(np.mean(logs)))


def by_cap(sizes: Array, moved: Array, place: int) -> float:
    """The same of one quality and a cap of the bytes; a photo moves by the mean of its quality."""
    curve = np.minimum.accumulate(moved.mean(1))
    best, photos = 1.0, np.arange(sizes.shape[1])
    for top in range(place, STEPS):
        for cap in np.quantile(sizes[top], np.linspace(0, 1, 51)):
            own = np.minimum(top, np.maximum(0, (sizes <= cap).sum(0) - 1))
            if curve[own].mean() <= curve[place] + 1e-12:
                best = min(best, float(sizes[own, photos].mean() / sizes[place].mean()))
    return best


def main() -> None:
    """Print a row for each ladder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("memory", type=Path)
    parser.add_argument("--seen", type=int, default=80, help="photos to look at")
    options = parser.parse_args()
    for family, (qualities, sizes, moved) in ladders_of(options.memory, options.seen).items():
        values = json.loads(family)
        name = " ".join(
            str(values[key]) for key in ("format", "guide", "table", "shape", "subsampling")
        )
        side = values.get("max_side") or values.get("short_side") or "all"
        spread = np.log(sizes).std(1).mean()
        fine, far = np.exp(finer(qualities, np.log(sizes))), finer(qualities, moved)
        print(f"{name}, {side} pixels: deviation of log bytes {spread:.2f}")
        for place in PLACES:
            told = []
            for classes in (2, 3):
                share = applied(fine, far, *best_of(fine, far, place, classes))[0]
                share /= fine[place].mean()
                told.append(f"{share:.3f} ({honest(fine, far, place, classes):.3f})")
            print(
                f"    moved {far[place].mean():.4f}: 2, 3 classes {', '.join(told)}; cap"
                f" {by_cap(fine, far, place):.3f}"
            )


if __name__ == "__main__":
    main()
