"""Other steps for a trained codec of pictures in their spectrum, and the context model that belongs
to them.

    python recipes/cifar_steps.py RUN/model.safetensors --data CIFAR --steps 2.2,1.42,.605,.3 \\
        -o FINER

Finer steps bring every iteration to more bytes and a smaller error without another training; the
networks stay. What a number of bytes allows is found by trying: bytes of payload and PSNR of 1,000
held pictures are printed for each iteration. `FINER/model.safetensors` is the codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.graphs.spectral import SpectralConfig
from vizcomp.nets.spectral import SpectralCodec
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import read_model
from vizcomp.training.codec import load_weights, save_codec
from vizcomp.training.contexts import fit_contexts

HELD = 0.1  # of the training pictures, as trainings hold back
SHOWN = 1000
SETS = 4  # of contexts


def main() -> None:
    """Write the codec and print what its iterations cost and give."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="as `vizcomp train` takes it")
    parser.add_argument("--steps", help="one for each iteration, largest first; left out: as is")
    parser.add_argument("--pictures", type=int, default=4000, help="that contexts are fitted on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    about, _ = read_model(asked.model)
    network = dict(about["network"])
    if asked.steps:
        network["steps"] = [float(step) for step in asked.steps.split(",")]
    codec = SpectralCodec(SpectralConfig.from_dict(network))
    load_weights(asked.model, codec)
    codec.eval().requires_grad_(False)
    torch.set_num_threads(1)

    data = read_labelled(asked.data, size=network["native"], exact=True)
    rest, held = split(data.labels, HELD, asked.seed)
    taken = rest[np.linspace(0, len(rest) - 1, min(asked.pictures, len(rest))).astype(int)]
    metadata = {key: value for key, value in about.items() if key not in ("kind", "network")}
    _, contexts = fit_contexts(
        codec, metadata, data.images[taken], most=len(taken), seed=asked.seed, sets=SETS
    )
    asked.output.mkdir(parents=True, exist_ok=True)
    path = asked.output / "model.safetensors"
    save_codec(path, codec, metadata, contexts)

    held = held[np.linspace(0, len(held) - 1, min(SHOWN, len(held))).astype(int)]
    pictures = data.images[held]
    written = NeuralCodec.load(path, threads=1)
    height, width = pictures.shape[1:3]
    for count in range(1, len(network["steps"]) + 1):
        payloads = written.payloads(pictures, iterations=count)
        error = written.decode_payloads(payloads, width, height, count).astype(float) - pictures
        decibels = 10 * np.log10(255**2 / (error**2).mean((1, 2, 3))).mean()
        print(f"{count}: {np.mean([len(one) for one in payloads]):.2f} bytes, {decibels:.2f} dB")


if __name__ == "__main__":
    main()
