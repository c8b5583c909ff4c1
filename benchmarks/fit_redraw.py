"""What a certificate costs on the answers that a fit remembers: redraws of its photos.

The memory of a fit (`fit/*.sqlite` in the cache folder, as `fit_pays.py` leaves it) has what each
setting did to each photo. Photos that were seen under the most settings are drawn with replacement;
a draw explores on one part and certifies on the other, with the search and the tests of the
package. Steps of 5% of the bytes between two rungs have, on each photo, the loss of either rung by
lot, anew in each draw. Bytes are against the smallest setting that keeps the risk in truth, over
all those photos.

    python benchmarks/fit_redraw.py CACHE/fit/KEY.sqlite --risks 0.05,0.1 --photos 428,1000
"""

from __future__ import annotations

import argparse
import collections
import json
import sqlite3
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vizcomp.fitting.scores import Aim, Scores, units_to_explore
from vizcomp.fitting.search import Order, certify, explore, seen_of

CONFIDENCE = 0.95
RUNGS = (14, 22, 32, 45, 60, 76, 86, 93, 97)
FEWEST = 3  # rungs of a ladder
STEP, MOST_STEPS = 0.05, 6
Step = tuple[int, int]  # a ladder, and a place in it, small files first
LAST: Step = (-1, 0)


def seen_most(path: Path, photos: int) -> tuple[dict[str, npt.NDArray[np.float64]], list[str]]:
    """The photos that were seen under the most settings of djpeg, so many, and of the settings that
    all of them were seen under a table each (bytes, loss, moved by photo)."""
    base = sqlite3.connect(path)
    rows: dict[str, dict[str, list[float]]] = collections.defaultdict(dict)
    for photo, setting, row in base.execute("SELECT photo, setting, row FROM rows"):
        if "DjpegSettings" in setting:
            found = json.loads(row)
            rows[setting][photo] = [found["size"], max(found["losses"]), max(found["soft"])]
    counts = collections.Counter(photo for known in rows.values() for photo in known)
    both = sorted(sorted(counts), key=lambda photo: -counts[photo])[:photos]
    return {
        one: np.array([known[photo] for photo in both])
        for one, known in rows.items()
        if all(photo in known for photo in both)
    }, both


class Remembered:
    """Ladders of settings with the steps between their rungs, on all photos."""

    def __init__(self, known: dict[str, npt.NDArray[np.float64]]) -> None:
        self._rng = np.random.default_rng(0)
        self._mixed: dict[Step, tuple[npt.NDArray[np.float64], float]] = {}
        groups: dict[str, list[tuple[float, str]]] = collections.defaultdict(list)
        self.known: dict[Step, npt.NDArray[np.float64]] = {}
        for one, table in known.items():
            values = json.loads(one)
            quality = values.pop("quality")
            if quality == 100:
                self.known[LAST] = table
            elif quality in RUNGS:
                groups[json.dumps(values, sort_keys=True)].append((quality, one))
        if LAST not in self.known:
            raise SystemExit("the sources' own pixels are not in this memory")
        self.ladders: list[list[Step]] = []
        for rungs in (sorted(group) for group in groups.values() if len(group) >= FEWEST):
            ladder, place, below = len(self.ladders), 0, None
            self.ladders.append([])
            for _, one in rungs:
                if below is not None:
                    ratio = known[one][:, 0].mean() / below[:, 0].mean()
                    count = min(MOST_STEPS, max(1, round(float(np.log(ratio) / np.log1p(STEP)))))
                    for step in range(1, count):
                        share = step / count
                        # what is known of it in the mean; each draw has lots of its own
                        mean = (1 - share) * below + share * known[one]
                        mean[:, 0] = below[:, 0] ** (1 - share) * known[one][:, 0] ** share
                        self.known[ladder, place + step] = mean
                        self._mixed[ladder, place + step] = (np.stack([below, known[one]]), share)
                    place += count
                self.known[ladder, place] = below = known[one]
                self.ladders[-1].append((ladder, place))
            self.ladders[-1].append(LAST)
        self.true = {one: float(table[:, 1].mean()) for one, table in self.known.items()}
        self.size = {one: float(table[:, 0].mean()) for one, table in self.known.items()}

    def scores(self, one: Step, drawn: npt.NDArray[np.int64]) -> Scores:
        size, loss, moved = self.known[one][drawn].T
        if one in self._mixed:
            rungs, share = self._mixed[one]
            lots = (self._rng.random(len(drawn)) < share).astype(int)
            _, loss, moved = rungs[lots, drawn].T
        return Scores(size, loss[None], moved[None])

    def tests(self, order: Order[Step]) -> list[Step]:
        """An order with the steps between its rungs."""
        found = list(order.rungs[: order.near + 1])
        for one in order.rungs[order.near + 1 :]:
            above = found[-1]
            if above != LAST:
                found += [(one[0], place) for place in range(above[1] - 1, one[1], -1)]
            found.append(one)
        return found


def one_draw(answers: Remembered, drawn: npt.NDArray[np.int64], risk: float) -> Step:
    """What is certified on a draw."""
    first = units_to_explore(len(drawn), risk, CONFIDENCE, binary=False)
    aim = Aim(risk, CONFIDENCE, len(drawn) - first, (False,))
    order, seen = explore(
        answers.ladders,
        first,
        lambda some, part: {
            one: answers.scores(one, drawn[part.start : part.stop]) for one in some
        },
        aim,
        kind=lambda one: one[0],
    )
    aim = aim.informed(seen_of(order, seen))
    tests = certify(answers.tests(order), lambda one: answers.scores(one, drawn[first:]), aim)
    passed = [test.setting for test in tests if test.passed]
    return min(passed, key=answers.size.__getitem__, default=LAST)


def main() -> None:
    """Print a row for each risk and number of photos."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("memory", type=Path)
    parser.add_argument("--seen", type=int, default=80, help="photos to draw from")
    parser.add_argument("--risks", default="0.05,0.1")
    parser.add_argument("--photos", default="428,1000", help="photos of a draw")
    parser.add_argument("--draws", type=int, default=200)
    options = parser.parse_args()
    known, photos = seen_most(options.memory, options.seen)
    answers = Remembered(known)
    print(f"{len(photos)} photos, {len(known)} settings, {len(answers.ladders)} ladders")
    for risk in map(float, options.risks.split(",")):
        hindsight = min(answers.size[one] for one, true in answers.true.items() if true <= risk)
        for count in map(int, options.photos.split(",")):
            rng = np.random.default_rng(0)
            found = [
                one_draw(answers, rng.integers(0, len(photos), count), risk)
                for _ in range(options.draws)
            ]
            ratios = np.array([answers.size[one] for one in found]) / hindsight
            broken = np.mean([answers.true[one] > risk for one in found])
            print(
                f"risk {risk:.1%}  photos {count}  broken {broken:.1%}  bytes over hindsight:"
                f" mean {ratios.mean():.3f}, median {np.median(ratios):.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
