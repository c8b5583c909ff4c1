"""Where bits of a 32x32 picture should go: linear transform coders at equal bytes, in the eyes of
judges.

    python benchmarks/codec_linear.py --data ../shared/data/cifar10.tar.xz \\
        --models ../shared/models --metric metric.npy [--bytes 61] [--images 1000] \\
        [--coder pca --coder steps:0.5 --coder basis:0.5]

`recipes/cifar_metric.py` measures a metric M. The coders, on the DCT numbers of the codec `cifar`:

- `pca`: principal components, steps of one size;
- `steps:p`: the same, each step by (v^T M v)^(-p/2) of its axis v: reverse water-filling for a
  weighted error;
- `basis:p`: principal axes of the pictures as M^p sees them (generalised eigenvectors, which need
  not be orthogonal), steps of one size.

All have a quantiser with a wide zone about zero, ideal static entropy coding, centroids, and a
linear decoder of least squared error. Axes, statistics and decoder are of training pictures.
Judged, and brought to the bytes, are held ones: `inception`, `watcher`, and whether `efficientnet`
sees the sub-category that it sees on the source. Points below the sources are printed.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from codec_cifar import SEED, SHARE, psnr
from codec_honest import GROUPS, ImageNet, known

from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.graphs.spectral import SpectralConfig, spectrum
from vizcomp.training.metric import matrix_power

CODERS = ("pca", "steps:0.5", "basis:0.5", "basis:1")
ZONE = 0.62  # half of the zone about zero, in steps
LEVELS = 40  # on each side
WIDE = 2 * LEVELS + 1


class Coder:
    """An analysis matrix (K, M), steps (M,), and what training pictures say of its symbols.

    Args:
        numbers: of training pictures, (N, K), mean 0.
        judged: of the pictures that shall have so many bytes.
        target: bytes of a picture.
    """

    def __init__(
        self,
        analysis: np.ndarray,
        steps: np.ndarray,
        numbers: np.ndarray,
        judged: np.ndarray,
        target: float,
    ) -> None:
        self.analysis, self._steps = analysis, steps / np.exp(np.log(steps).mean())
        self._place = np.arange(len(steps)) * WIDE + LEVELS
        values, others = numbers @ analysis, judged @ analysis
        low, high = 0.01, 30.0
        for _ in range(14):
            self.step = np.sqrt(low * high)
            symbols = self._symbols(values)
            self._bits = -np.log2(self._shares(symbols))
            size = self._bytes(self._symbols(others))
            low, high = (self.step, high) if size > target else (low, self.step)
        count, total = self._sums(symbols), self._sums(symbols, values)
        self._centroids = total / np.maximum(count, 1)
        found = self._centroids[symbols + self._place]
        kept = found.T @ found + 0.01 * np.eye(len(steps))
        self._synthesis = np.linalg.solve(kept, found.T @ numbers)

    def __call__(self, numbers: np.ndarray) -> tuple[float, np.ndarray]:
        """Mean bytes, and what is decoded, (N, K)."""
        symbols = self._symbols(numbers @ self.analysis)
        return self._bytes(symbols), self._centroids[symbols + self._place] @ self._synthesis

    def _symbols(self, values: np.ndarray) -> np.ndarray:
        size = np.abs(values) / (self.step * self._steps)
        size = np.where(size < ZONE, 0, np.floor(size - ZONE) + 1)
        return (np.sign(values) * np.minimum(size, LEVELS)).astype(np.int64)

    def _sums(self, symbols: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
        weights = None if of is None else of.ravel()
        places = (symbols + self._place).ravel()
        return np.bincount(places, weights, minlength=len(self._steps) * WIDE)

    def _shares(self, symbols: np.ndarray) -> np.ndarray:
        counts = (self._sums(symbols) + 0.01).reshape(-1, WIDE)
        shares: np.ndarray = (counts / counts.sum(1, keepdims=True)).ravel()
        return shares

    def _bytes(self, symbols: np.ndarray) -> float:
        return float(self._bits[symbols + self._place].sum(1).mean() / 8)


def coder_of(
    spec: str, numbers: np.ndarray, judged: np.ndarray, metric: np.ndarray, target: float
) -> Coder:
    """By its name on the command line."""
    kind, _, power = spec.partition(":")
    spread = numbers.T @ numbers / len(numbers)
    axes = np.linalg.eigh(spread)[1][:, ::-1]
    steps = np.ones(len(spread))
    if kind == "steps":
        steps = np.einsum("ik,ij,jk->k", axes, metric, axes) ** (-float(power) / 2)
    elif kind == "basis":
        root = matrix_power(metric, float(power) / 2)
        axes = root @ np.linalg.eigh(root @ spread @ root)[1][:, ::-1]
    elif spec != "pca":
        raise SystemExit(f"{spec}: pca, steps:POWER or basis:POWER")
    return Coder(axes, steps, numbers, judged, target)


def spaced(numbers: np.ndarray, count: int) -> np.ndarray:
    """So many of them, evenly."""
    return numbers[np.linspace(0, len(numbers) - 1, min(count, len(numbers))).astype(int)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--models", type=Path, required=True, help="with efficientnet_lite0.onnx")
    parser.add_argument("--metric", type=Path, required=True)
    parser.add_argument("--coder", action="append", help=f"default {', '.join(CODERS)}")
    parser.add_argument("--bytes", type=float, action="append")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--kinds", type=int, default=480)
    parser.add_argument("--pictures", type=int, default=12_000, help="for statistics")
    args = parser.parse_args()

    data = read_labelled(args.data, part="train")
    taken, held = split(data.labels, SHARE, SEED)
    taken, held = spaced(taken, args.pictures), spaced(held, args.images)
    rows = spectrum(SpectralConfig(ladders=(((1, 2),),), steps=(1.0,))).astype(np.float64)

    def numbers(images: np.ndarray) -> np.ndarray:
        planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
        return (planes / 127.5 - 1) @ rows.T

    lessons, images, labels = numbers(data.images[taken]), data.images[held], data.labels[held]
    mean = lessons.mean(0)
    shown = numbers(images) - mean
    metric = np.load(args.metric).astype(np.float64)
    judges = {name: known(name) for name in ("inception", "watcher")}
    imagenet = ImageNet(args.models / "efficientnet_lite0.onnx")
    several = np.flatnonzero(np.isin(labels, [k for k, g in enumerate(GROUPS) if len(g) > 3]))
    several = spaced(several, args.kinds)
    kinds = imagenet.kinds(imagenet.logits(images[several]), labels[several])
    right = {name: (judge(images) == labels).mean() for name, judge in judges.items()}
    for target in args.bytes or [61.0]:
        for spec in args.coder or CODERS:
            coder = coder_of(spec, lessons - mean, shown, metric, target)
            size, decoded = coder(shown)
            pixels = np.clip(np.rint(((decoded + mean) @ rows + 1) * 127.5), 0, 255)
            found = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1).astype(np.uint8)
            found = np.ascontiguousarray(found)
            below = ", ".join(
                f"{name} {100 * (right[name] - (judge(found) == labels).mean()):.1f} below"
                for name, judge in judges.items()
            )
            same = imagenet.kinds(imagenet.logits(found[several]), labels[several]) == kinds
            print(
                f"{spec}: {size:.1f} bytes, {psnr(images, found):.2f} dB, {below},"
                f" sub-category {same.mean():.1%} of {len(several)}",
                flush=True,
            )


if __name__ == "__main__":
    main()
