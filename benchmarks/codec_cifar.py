"""Small images: the `cifar` codec beside WebP and JPEG, for a classifier it was trained against and
one it never saw.

    python benchmarks/codec_cifar.py \\
        --data ../shared/data/cifar10.tar.xz [--part held|test] [--images 1000] [--search 24]

Bytes are of whole files (or of a whole pack, divided by its images). All three figures always stand
together, since a codec can send a label: accuracy of `inception` (trained against), accuracy of
`watcher` (never seen), PSNR. `held` is the part of the training data that no network was trained
on; it may be used to choose. `test` is for the last look.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
from PIL import Image

from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.graphs.classifiers import Classifier
from vizcomp.neural.analysis import Search
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vzc import coding
from vizcomp.vzc.packs import PackWriter

SEED, SHARE = 0, 0.1  # as in the recipes


def answers(classifier: Classifier, images: np.ndarray) -> np.ndarray:
    """Class of each image: uint8 (N, H, W, 3) to int64 (N,)."""
    return classifier.logits(images).argmax(1)


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    """Mean over images of the PSNR of each, dB."""
    error = ((a.astype(np.float64) - b) ** 2).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-2))).mean())


def through_pillow(images: np.ndarray, **how: object) -> tuple[float, np.ndarray]:
    sizes, out = [], np.empty_like(images)
    for i, image in enumerate(images):
        buffer = io.BytesIO()
        Image.fromarray(image).save(buffer, **how)
        sizes.append(buffer.tell())
        out[i] = np.asarray(Image.open(buffer).convert("RGB"))
    return float(np.mean(sizes)), out


def pca(train: np.ndarray, images: np.ndarray, step: float) -> tuple[float, np.ndarray]:
    """What a linear transform can do: the principal components of whole pictures, rounded to steps
    with a wide zone about zero, in as many bits as ideal static entropy coding would take.

    Args:
        train: pictures that axes, probabilities and the middles of intervals are taken from.
    """
    a, b = (x.reshape(len(x), -1).astype(np.float32) / 127.5 - 1 for x in (train, images))
    mean = a.mean(0)
    axes = np.linalg.eigh(np.cov((a - mean).T))[1][:, ::-1][:, :1000].astype(np.float32)
    a, b = (a - mean) @ axes, (b - mean) @ axes
    bits, decoded = 0.0, np.zeros_like(b)
    for k in range(a.shape[1]):
        levels = [
            np.sign(x[:, k]) * np.ceil(np.maximum(0, np.abs(x[:, k]) / step - 0.62)) for x in (a, b)
        ]
        low = int(min(x.min() for x in levels))
        before, after = ((x - low).astype(int) for x in levels)
        counts = np.bincount(before, minlength=int(max(before.max(), after.max())) + 1) + 0.01
        middles = np.bincount(before, a[:, k], len(counts)) / counts
        bits -= np.log2(counts / counts.sum())[after].mean()
        decoded[:, k] = middles[after]
    pixels = np.clip(np.rint((decoded @ axes.T + mean + 1) * 127.5), 0, 255).astype(np.uint8)
    return bits / 8, pixels.reshape(images.shape)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--part", choices=("held", "test"), default="held")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--search", type=int, default=-1, help="candidates; -1: the default")
    parser.add_argument("--model", default="cifar")
    parser.add_argument("--inception", default="inception")
    parser.add_argument("--watcher", default="watcher")
    parser.add_argument(
        "--task", type=float, help="weight of the task in the search, to choose it on the held part"
    )
    parser.add_argument("--rate", type=float, help="weight of a bit in the search")
    parser.add_argument("--iterations", type=int, nargs="*", help="only these; default: all")
    parser.add_argument("--baselines", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()

    data = read_labelled(args.data, part="train" if args.part == "held" else "test")
    chosen = (
        split(data.labels, SHARE, SEED)[1] if args.part == "held" else np.arange(len(data.labels))
    )
    # evenly over the classes: the data are sorted by class
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(args.images, len(chosen))).astype(int)]
    images, labels = data.images[chosen], data.labels[chosen]
    seers = {"inception": Classifier.load(args.inception), "watcher": Classifier.load(args.watcher)}
    codec = NeuralCodec.load(args.model, threads=1)
    if args.inception != "inception":
        codec.words["classifier"] = args.inception
    if args.task is not None or args.rate is not None:
        old = codec.search
        codec.search = Search(
            task=old.task if args.task is None else args.task,
            rate=old.rate if args.rate is None else args.rate,
            least=old.least,
        )
    search = None if args.search < 0 else args.search
    print(
        f"{len(images)} images of CIFAR-10 (JPEG-75 copy), {args.part} part; model {args.model},"
        f" {codec.search}"
    )
    print(f"{'codec':26} {'bytes':>7} {'most':>6} {'inception':>10} {'watcher':>8} {'PSNR':>6}")

    def row(name: str, size: float, most: float, found: np.ndarray) -> None:
        seen = [float((answers(s, found) == labels).mean()) for s in seers.values()]
        print(
            f"{name:26} {size:7.1f} {most:6.0f} {100 * seen[0]:9.1f}% {100 * seen[1]:7.1f}%"
            f" {psnr(images, found):6.2f}",
            flush=True,
        )

    seen = [float((answers(s, images) == labels).mean()) for s in seers.values()]
    print(f"{'source':26} {'':7} {'':6} {100 * seen[0]:9.1f}% {100 * seen[1]:7.1f}%", flush=True)
    for many in args.iterations or range(1, codec.iterations + 1):
        for tried in dict.fromkeys([0, search] if codec.words.get("classifier") or search else [0]):
            started = time.perf_counter()
            codes = codec.codes_many(images, iterations=many, search=tried)
            files = codec.files(codes, 32, 32)
            seconds = time.perf_counter() - started
            sizes = [len(f) for f in files]
            found = np.stack([codec.decode(f).image for f in files])
            row(
                f"{many} iterations, search {'on' if tried is None else tried}",
                float(np.mean(sizes)),
                max(sizes),
                found,
            )
            if many == (args.iterations or [1])[0]:
                print(f"    ({len(images) / seconds:.0f} images/s to encode, one thread)")
        payloads = coding.encode_batch(codec.context, codes, [])  # of the last search above
        writer = PackWriter(model=codec.fingerprint)
        for payload in payloads:
            writer.add(payload, 32, 32, iterations=many)
        pack = len(writer.finish())
        found = codec.decode_payloads(payloads, 32, 32, many)
        row(f"{many} iterations in a pack", pack / len(images), max(map(len, payloads)), found)
    codes = codec.codes_many(images, search=0, iterations=codec.iterations)
    total, raw = 0, 0
    for t, plane in enumerate(codes):
        coded = sum(map(len, coding.encode_batch(codec.context, [plane], codes[:t])))
        own = len(images) * plane[0].size / 8
        total, raw = total + coded, raw + own
        print(
            f"iteration {t + 1}: {plane[0].size / 8:.1f} raw bytes, {coded / own:.1%} left after"
            " entropy coding",
            flush=True,
        )
    whole = sum(map(len, coding.encode_batch(codec.context, codes, [])))
    print(f"all iterations: {total / raw:.1%} in chunks, {whole / raw:.1%} as one (in packs)")
    if args.baselines:
        every = read_labelled(args.data, part="train")
        lessons = every.images[split(every.labels, SHARE, SEED)[0][::4]]
        for step in (3.6, 2.0, 1.5, 1.0, 0.6):
            size, found = pca(lessons, images, step)
            row(f"PCA, ideal coding, step {step}", size, 0, found)
        for quality in (0, 1, 5, 10, 20, 40):
            size, found = through_pillow(images, format="WEBP", quality=quality, method=6)
            row(f"WebP q{quality}", size, 0, found)
        for quality in (1, 5, 10, 20, 30):
            size, found = through_pillow(
                images, format="JPEG", quality=quality, optimize=True, subsampling=2
            )
            row(f"JPEG q{quality}", size, 0, found)


if __name__ == "__main__":
    main()
