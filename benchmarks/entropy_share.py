"""How many of a codec's raw bits are left after entropy coding, and how quickly that goes.

    OMP_NUM_THREADS=1 python benchmarks/entropy_share.py [--codes FILE.npz] [--adaptive] \\
        [--sets 8] [--held 0.2]

The file holds `iteration_0`, `iteration_1` ...: uint8 (N, C_t, H, W); or, where grids differ,
`0_0`, `0_1` ... (image, iteration): uint8 (C_t, H, W). The last part of the images is held back and
coded with a model fitted to the others. Without a file: made codes of 32x32 images, signs of noisy
projections of smooth fields. They tell about the coder, not about any codec.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import numpy.typing as npt

from vizcomp.vzc import coding, fitting

Code = list[npt.NDArray[np.uint8]]


def made(images: int, channels: tuple[int, ...] = (5, 7, 8, 16, 32), side: int = 4) -> list[Code]:
    """Each iteration sees the fields less clearly than the one before: later bits are nearer to
    noise, as a codec's are."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(images, 8, side + 2, side + 2))
    smooth = (
        sum(np.roll(noise, (a, b), (2, 3)) for a in (-1, 0, 1) for b in (-1, 0, 1))[
            :, :, 1:-1, 1:-1
        ]
        / 3
    )
    planes = []
    for t, count in enumerate(channels):
        mixed = np.einsum("cs,nsyx->ncyx", rng.normal(size=(count, 8)) / 8**0.5, smooth)
        planes.append((mixed + (0.3 + 0.5 * t) * rng.normal(size=mixed.shape) > 0).astype(np.uint8))
    return [[p[i] for p in planes] for i in range(images)]


def read(path: str) -> list[Code]:
    with np.load(path) as stored:
        if "iteration_0" in stored:
            count = sum(name.startswith("iteration_") for name in stored.files)
            planes = [stored[f"iteration_{t}"] for t in range(count)]
            return [[p[i] for p in planes] for i in range(len(planes[0]))]
        codes: dict[int, dict[int, npt.NDArray[np.uint8]]] = {}
        for name in stored.files:
            image, iteration = name.split("_")
            codes.setdefault(int(image), {})[int(iteration)] = stored[name]
    return [[planes[t] for t in sorted(planes)] for _, planes in sorted(codes.items())]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--codes", help="npz of codes; made ones otherwise")
    parser.add_argument("--adaptive", action="store_true", help="let the model learn while coding")
    parser.add_argument("--sets", type=int, default=8)
    parser.add_argument(
        "--held", type=float, default=0.2, help="share of the images that is coded, not fitted to"
    )
    options = parser.parse_args()
    codes = read(options.codes) if options.codes else made(5000)
    held = max(1, round(len(codes) * options.held))
    train, test = codes[:-held], codes[-held:]

    start = time.perf_counter()
    model = fitting.fit(train, adaptive=options.adaptive, sets=options.sets)
    seconds = time.perf_counter() - start
    size = sum(array.nbytes for array in model.to_arrays().values())
    print(
        f"fitted to {len(train)} images in {seconds:.1f} s: {size} bytes, rates"
        f" {model.rates.tolist()}"
    )

    print(f"{len(test)} images coded, each iteration by itself\n")
    print(
        f"{'iteration':>9} {'raw bytes':>10} {'bytes':>10} {'share':>7} {'ideal':>7} {'waste':>6}  "
        " (means; waste: bytes a chunk)"
    )
    raw_total = total = bits = 0
    encoding = decoding = 0.0
    for t in range(len(model.channels)):
        raw, sizes, ideal = [], [], []
        for image in test:
            known, planes = image[:t], image[t : t + 1]
            start = time.perf_counter()
            data = coding.encode(model, planes, known)
            encoding += time.perf_counter() - start
            start = time.perf_counter()
            back = coding.decode(model, data, t, t, planes[0].shape[1:], known)
            decoding += time.perf_counter() - start
            if not np.array_equal(back[0], planes[0]):
                raise SystemExit("decoded codes differ")
            raw.append(planes[0].size / 8)
            sizes.append(len(data))
            ideal.append(coding.cost_bits(model, planes, known) / 8)
            bits += planes[0].size
        share, best, waste = (
            sum(sizes) / sum(raw),
            sum(ideal) / sum(raw),
            np.mean(sizes) - np.mean(ideal),
        )
        print(
            f"{t:9} {np.mean(raw):10.1f} {np.mean(sizes):10.2f} {share:7.1%} {best:7.1%}"
            f" {waste:6.2f}"
        )
        raw_total, total = raw_total + sum(raw), total + sum(sizes)
    print(
        f"{'all':>9} {raw_total / len(test):10.1f} {total / len(test):10.2f}"
        f" {total / raw_total:7.1%}"
    )
    print(
        f"\none image and iteration at a time: {bits / encoding / 1e6:.1f} Mbit/s encoded,"
        f" {bits / decoding / 1e6:.1f} decoded"
    )

    batch = [image for image in test if image[0].shape == test[0][0].shape][:1000]
    stacked = [np.stack([image[t] for image in batch]) for t in range(len(model.channels))]
    start = time.perf_counter()
    together = coding.encode_batch(model, stacked, [])
    middle = time.perf_counter()
    coding.decode_batch(model, together, 0, len(stacked) - 1, stacked[0].shape[2:], [])
    end = time.perf_counter()
    mbit = sum(p.size for p in stacked) / 1e6
    print(
        f"{len(batch)} images in one batch, all iterations in one string:"
        f" {np.mean([len(d) for d in together]):.2f} bytes each, ",
        end="",
    )
    print(f"{mbit / (middle - start):.1f} Mbit/s encoded, {mbit / (end - middle):.1f} decoded")


if __name__ == "__main__":
    main()
