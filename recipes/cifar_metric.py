"""What of a picture moves the answers of networks, as a metric by which a codec's training weighs
its errors (`metric` in `training.spectral`).

    cd recipes
    EYES=eyes MOBILENET=../../shared/models/mobilenet_v2_1.0_224_quant.tflite \\
        python cifar_metric.py cifar --data ../../shared/data/cifar10.tar.xz -o metric.npy \\
        --network inception --network codec_eyes:mobilenet --network codec_eyes:residual

It is the mean Fisher information of the networks' answers, `E[g g^T]`, in the numbers of the
codec's transform: g is the gradient of ln p(y), and y is drawn from the answer, so that no label is
used. It is taken at pictures between the source and what iterations from the second on leave of it,
mirrored too, and each network counts alike. Its matrix power 0 is the squared error, 1 what the
answers see; between the two a codec keeps something of both.
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
from vizcomp.neural.models import model_path, read_model
from vizcomp.training.codec import load_weights
from vizcomp.training.frozen import one_sided, open_frozen

HELD = 0.1, 0  # share and seed of the pictures that are left out, as the codec's recipes do
FIRST = 1  # of the iterations, counted from 0, between whose pictures and the source it is taken
BATCH = 100


def fisher(codec: SpectralCodec, images: torch.Tensor, network: torch.nn.Module) -> np.ndarray:
    """Of one network: float64 (K, K).

    Args:
        images: (N, 3, H, W) in -1..1.
        network: takes (N, 3, H, W) in 0..1, gives logits.
    """
    count, many = codec.config.components, codec.config.iterations
    found = np.zeros((count, count))
    for source in images.split(BATCH):
        with torch.no_grad():
            left, _ = codec(source, many)
            of = torch.randint(min(FIRST, many - 1), many, (len(source),))
            coded = codec.picture(torch.stack(left)[of, torch.arange(len(source))])
        way = torch.rand(len(source), 1, 1, 1)
        seen = (source + way * (coded - source)).clamp(-1, 1).requires_grad_()
        answer = network(seen / 2 + 0.5).log_softmax(1)
        drawn = torch.multinomial(answer.detach().exp(), 1)
        (slope,) = torch.autograd.grad(answer.gather(1, drawn).sum(), seen)
        rows = (slope.flatten(1) @ codec.spectrum.T).double().numpy()
        found += rows.T @ rows
    # a mirrored picture has the other sign in every odd horizontal frequency
    across = np.array([(-1.0) ** h for _, _, h in codec.config.frequencies()])
    return (found + found * across[:, None] * across[None]) / (2 * len(images))


def main() -> None:
    """Write the metric."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="codec of pictures in their spectrum")
    parser.add_argument("--data", required=True, help="as `vizcomp train` takes it")
    parser.add_argument("--network", action="append", required=True, help="as `--classifier`")
    parser.add_argument("--pictures", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(asked.seed)
    path = model_path(asked.model)
    about, _ = read_model(path)
    codec = SpectralCodec(SpectralConfig.from_dict(about["network"]))
    load_weights(path, codec)
    codec.eval().requires_grad_(False)

    side, count = codec.config.native, codec.config.components
    data = read_labelled(asked.data, size=side, exact=True)
    rest, _ = split(data.labels, *HELD)
    taken = rest[np.linspace(0, len(rest) - 1, min(asked.pictures, len(rest))).astype(int)]
    images = torch.from_numpy(data.images[taken]).permute(0, 3, 1, 2).float() / 127.5 - 1
    metric = np.zeros((count, count))
    for name in asked.network:
        one = fisher(codec, images, one_sided(open_frozen(name, side)))
        metric += one * (count / np.trace(one) / len(asked.network))
        print(f"{name}: {np.trace(one):.3g} in all", flush=True)
    np.save(asked.output, metric.astype(np.float32))


if __name__ == "__main__":
    main()
