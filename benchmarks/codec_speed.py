"""How fast the recurrent codec is, and how much memory it takes, beside the published network at
full size.

    python benchmarks/codec_speed.py --photo kodim04.png --small cifar10.tar.xz [--threads 2]

The published network (Toderici et al. 2017: 35.5 M parameters) is built here from its description
in plain PyTorch, with random
weights: they do not change how long it takes. Both run in the same process on the same image, one
after the other, the median of several rounds each. For an iteration of 768x512: the network alone
(as published networks are timed), and for ours also the whole way from pixels to a file and back.
Memory is the peak of a process of its own that codes 24 megapixels.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.nn import functional as F

from vizcomp.datasets.read import read_labelled
from vizcomp.neural.arrays import to_planes
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.network import decode_each
from vizcomp.neural.spectral import open_network

MEMORY = """
import resource, sys
import numpy as np
from PIL import Image
from vizcomp.neural.codec import NeuralCodec
codec = NeuralCodec.load(sys.argv[1], threads=int(sys.argv[3]))
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
photo = np.asarray(
    Image.open(sys.argv[2]).convert("RGB").resize((6000, 4000), Image.Resampling.BICUBIC)
)
if sys.argv[4] == "encode":
    open(sys.argv[5], "wb").write(codec.encode(photo, iterations=2))
else:
    del photo
    codec.decode(open(sys.argv[5], "rb").read())
print(loaded // 1024, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


class Cell(nn.Module):
    """A ConvLSTM cell as the paper describes it."""

    def __init__(self, ins: int, outs: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.x = nn.Conv2d(ins, 4 * outs, 3, stride, 1, bias=False)
        self.h = nn.Conv2d(outs, 4 * outs, kernel, 1, kernel // 2, bias=False)

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        i, f, g, o = (self.x(x) + self.h(state[0])).chunk(4, 1)
        c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
        return torch.sigmoid(o) * torch.tanh(c), c


class Published(nn.Module):
    """Encoder 64/256/512/512, 32 bits a block of 16x16, decoder 512/512/256/128 with depth-to-space
    (Toderici et al. 2017)."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 64, 3, 2, 1, bias=False)
        self.enc = nn.ModuleList([Cell(64, 256, 2, 1), Cell(256, 512, 2, 1), Cell(512, 512, 2, 1)])
        self.bits = nn.Conv2d(512, 32, 1, bias=False)
        self.enter = nn.Conv2d(32, 512, 1, bias=False)
        self.dec = nn.ModuleList(
            [Cell(512, 512, 1, 1), Cell(128, 512, 1, 1), Cell(128, 256, 1, 3), Cell(64, 128, 1, 3)]
        )
        self.last = nn.Conv2d(32, 3, 1, bias=False)

    def states(self, n: int, h: int, w: int) -> tuple[list[tuple[torch.Tensor, torch.Tensor]], ...]:
        def zero(c: int, by: int) -> tuple[torch.Tensor, torch.Tensor]:
            return torch.zeros(n, c, h // by, w // by), torch.zeros(n, c, h // by, w // by)

        return [zero(256, 4), zero(512, 8), zero(512, 16)], [
            zero(512, 16),
            zero(512, 8),
            zero(256, 4),
            zero(128, 2),
        ]

    def encode(
        self, x: torch.Tensor, states: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        x = self.first(x)
        for i, cell in enumerate(self.enc):
            states[i] = cell(x, states[i])
            x = states[i][0]
        return torch.tanh(self.bits(x)).sign()

    def decode(
        self, bits: torch.Tensor, states: list[tuple[torch.Tensor, torch.Tensor]]
    ) -> torch.Tensor:
        x = torch.tanh(self.enter(bits))
        for i, cell in enumerate(self.dec):
            states[i] = cell(x, states[i])
            x = F.pixel_shuffle(states[i][0], 2)
        return torch.tanh(self.last(x))


def median(run: Callable[[], object], rounds: int) -> float:
    """Seconds, after one round that does not count."""
    run()
    took = []
    for _ in range(rounds):
        began = time.perf_counter()
        run()
        took.append(time.perf_counter() - began)
    return statistics.median(took)


def published_times(x: torch.Tensor, rounds: int) -> tuple[float, float]:
    """Seconds to encode (which decodes too, for the residual of the next iteration) and to decode,
    an iteration."""
    network = Published().eval()
    n, _, h, w = x.shape
    encoder, decoder = network.states(n, h, w)

    def code() -> None:
        network.decode(network.encode(x, encoder), decoder)

    bits = network.encode(x, encoder)
    return median(code, rounds), median(lambda: network.decode(bits, decoder), rounds)


def our_times(codec: NeuralCodec, x: torch.Tensor, rounds: int) -> tuple[float, float]:
    """The same for our network: the mean of its iterations, the first of which is quicker than the
    others."""
    network, many = (
        open_network(codec.config, codec.weights, threads=torch.get_num_threads()),
        codec.iterations,
    )
    source = x.numpy()

    def code() -> list[np.ndarray]:
        state, codes = network.start(len(source), *source.shape[2:]), []
        for _ in range(many):
            values, encoder = network.analyse(source, state)
            codes.append(values > 0)
            state = network.synthesise(codes[-1], state)._replace(encoder=encoder)
        return codes

    codes = code()
    return (
        median(code, rounds) / many,
        median(lambda: list(decode_each(network, codes)), rounds) / many,
    )


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photo", type=Path, required=True, help="any photo; it is cut to 768x512")
    parser.add_argument("--small", type=Path, help="labelled images of 32x32, as for training")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--photo-model", default="photo")
    parser.add_argument("--cifar-model", default="cifar")
    parser.add_argument("--memory", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"published: torch {torch.__version__}, eager; ours: ONNX Runtime")
    print(f"{args.threads} threads of {os.cpu_count()}, median of {args.rounds}")

    with Image.open(args.photo) as image:
        photo = np.asarray(image.convert("RGB").resize((768, 512)))
    x = torch.from_numpy(to_planes(photo[None]))
    codec = NeuralCodec.load(args.photo_model, threads=args.threads)
    theirs, ours = published_times(x, args.rounds), our_times(codec, x, args.rounds)
    print("768x512, the network, an iteration          encode    decode")
    print(f"  published, full size                   {theirs[0]:8.3f}s {theirs[1]:8.3f}s")
    print(f"  ours, {args.photo_model[-20:]:20}             {ours[0]:8.3f}s {ours[1]:8.3f}s")
    print(
        f"  times faster                           {theirs[0] / ours[0]:8.1f} "
        f" {theirs[1] / ours[1]:8.1f}"
    )
    data = codec.encode(photo)
    encode, decode = (
        median(lambda: codec.encode(photo), args.rounds),
        median(lambda: codec.decode(data), args.rounds),
    )
    many = codec.iterations
    print(
        f"  pixels to file and back, {many} iterations: {encode:.2f} s and {decode:.2f} s"
        f" ({len(data)} bytes)"
    )
    print(
        f"    an iteration, against the published network alone: {many * theirs[0] / encode:.1f},"
        f" {many * theirs[1] / decode:.1f}"
    )

    if args.small:
        labelled = read_labelled(args.small, part="train")
        small = labelled.images[:: len(labelled.images) // 1000][:1000]
        codec = NeuralCodec.load(args.cifar_model, threads=args.threads)
        files = codec.encode_many(small, search=0)
        encode = median(lambda: codec.encode_many(small, search=0), args.rounds)
        decode = median(lambda: [codec.decode(f) for f in files], args.rounds)
        payloads = codec.payloads(small, search=0)
        batch = median(lambda: codec.decode_payloads(payloads, 32, 32, 1), args.rounds)
        x = torch.from_numpy(to_planes(small[:100]))
        theirs, ours = published_times(x, args.rounds), our_times(codec, x, args.rounds)
        print("32x32, the network, an iteration of 100     encode    decode")
        print(
            f"  times faster than the published        {theirs[0] / ours[0]:8.1f} "
            f" {theirs[1] / ours[1]:8.1f}"
        )
        print(
            f"1,000 images of 32x32 to files of one iteration, no search: {1000 / encode:.0f}"
            " images/s to encode,"
        )
        print(
            f"  {1000 / decode:.0f} images/s to decode one by one, {1000 / batch:.0f} images/s as"
            " from a pack"
        )
        began = time.perf_counter()
        codec.encode_many(small[:200])
        print(
            f"  with the default search: {200 / (time.perf_counter() - began):.0f} images/s to"
            " encode"
        )

    if args.memory:
        out = Path(os.environ.get("TMPDIR", "/tmp")) / f"codec_speed_{os.getpid()}.vzc"
        try:
            for what in ("encode", "decode"):
                line = [
                    sys.executable,
                    "-c",
                    MEMORY,
                    args.photo_model,
                    str(args.photo),
                    str(args.threads),
                    what,
                    str(out),
                ]
                loaded, most = subprocess.run(
                    line, capture_output=True, text=True, check=True
                ).stdout.split()
                print(
                    f"24 megapixels, {what}, 2 iterations: {most} MB at most, of which {loaded} MB"
                    " before the first image"
                )
        finally:
            out.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
