"""A picture or a label: what tells the two apart, for codecs of 32x32 images beside WebP and JPEG
XL.

    python benchmarks/codec_honest.py --data ../shared/data/cifar10.tar.xz \\
        --models ../shared/models [--part held|test] [--codec cifar:3 --codec cifar-label:4] \\
        [--images 1000] [--pictures 10000] [--epochs 5] [--seeds 3]

For each codec at a number of iterations, WebP and JPEG XL at their smallest, and the sources:

- bytes (in a pack, index and all; whole files of the others), PSNR;
- `inception`, `watcher`; judges trained anew on sources, of families that no codec was trained
  through (`--epochs`, `--seeds`): a plain convolutional network, and a mixer of patches;
  `efficientnet`, of ImageNet: the group of its classes that means the label (planes, cars, birds
  ...), of pictures enlarged to 224;
- sub-category: whether the best ImageNet class within the label's group (the breed of the dog, the
  kind of bird) is the one that `efficientnet` sees on the source. A codec that sends the label
  alone cannot keep it;
- injection, where an encoder is told a classifier's answer: it is told another class, and the share
  of each judge's answers that are this false class is counted;
- learning: a classifier trained on decoded pictures and tested on untouched sources, in points
  below one trained on sources with equal epochs and seeds.

`held` is the part of the training data that no network was trained on; it may be used to choose.
`test` is for the last look.
"""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from codec_cifar import SEED, SHARE, psnr, through_pillow
from torch import nn
from torch.nn import functional as F

from vizcomp.datasets.photos import split
from vizcomp.datasets.read import read_labelled
from vizcomp.graphs.classifiers import Classifier
from vizcomp.neural.codec import NeuralCodec
from vizcomp.vzc.packs import PackWriter
from vizcomp.weights.sessions import open_session

Answer = Callable[[np.ndarray], np.ndarray]  # uint8 (N, 32, 32, 3) to the numbers of classes, (N,)

# ImageNet's classes that mean a class of CIFAR-10; deer are antelopes there
GROUPS = (
    (404, 895),
    (436, 468, 511, 609, 627, 656, 661, 751, 817),
    (*range(7, 25), *range(80, 101), *range(127, 147)),
    tuple(range(281, 286)),
    (351, 352, 353),
    tuple(range(151, 269)),
    (30, 31, 32),
    (339, 340),
    (403, 484, 510, 554, 625, 628, 724, 780, 814, 833, 871, 914),
    (555, 569, 675, 717, 734, 864, 867),
)


class Plain(nn.Module):
    """Six convolutions without skips."""

    def __init__(self) -> None:
        super().__init__()
        sizes = ((3, 32, 2), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1))
        layers: list[nn.Module] = []
        for ins, outs, stride in sizes:
            layers += [
                nn.Conv2d(ins, outs, 3, stride, 1, bias=False),
                nn.BatchNorm2d(outs),
                nn.ReLU(),
            ]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(128, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(x).amax((2, 3)))


class Mixer(nn.Module):
    """Patches of 4x4, mixed across places and across channels in turn (Tolstikhin and others,
    MLP-Mixer, 2021)."""

    def __init__(self, width: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.enter, self.last = nn.Conv2d(3, width, 4, 4), nn.Linear(width, 10)
        self.places = nn.ModuleList(
            nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64)) for _ in range(depth)
        )
        self.channels = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2 * depth))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.enter(x).flatten(2).transpose(1, 2)
        for k, (places, channels) in enumerate(zip(self.places, self.channels, strict=True)):
            x = x + places(self.norms[2 * k](x).transpose(1, 2)).transpose(1, 2)
            x = x + channels(self.norms[2 * k + 1](x))
        return self.last(x.mean(1))


def planes(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1


def taught(
    kind: type[nn.Module], images: np.ndarray, labels: np.ndarray, epochs: int, seed: int
) -> nn.Module:
    """A network trained on pictures, moved by up to 2 pixels and mirrored; one cycle of the
    learning rate."""
    torch.manual_seed(seed)
    network = kind()
    batch, count = 128, len(images)
    steps = epochs * (count // batch)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    x, y = torch.from_numpy(images), torch.from_numpy(labels)
    for step in range(steps):
        if step % (count // batch) == 0:
            order = torch.randperm(count)
        at = order[step % (count // batch) * batch :][:batch]
        view = F.pad(x[at].permute(0, 3, 1, 2).float() / 127.5 - 1, (2, 2, 2, 2), mode="reflect")
        dy, dx = (int(d) for d in torch.randint(0, 5, (2,)))
        view = view[:, :, dy : dy + 32, dx : dx + 32]
        view = view.flip(3) if torch.rand(()) < 0.5 else view
        loss = F.cross_entropy(network(view), y[at], label_smoothing=0.1)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
    return network.eval().requires_grad_(False)


def known(name: str) -> Answer:
    classifier = Classifier.load(name)
    return lambda images: classifier.logits(images).argmax(1)


def answer_of(network: nn.Module) -> Answer:
    return lambda images: torch.cat(
        [network(planes(part)).argmax(1) for part in np.array_split(images, 8)]
    ).numpy()


class ImageNet:
    """`efficientnet_lite0.onnx` on enlarged pictures."""

    def __init__(self, path: Path) -> None:
        self._session = open_session(path.read_bytes(), threads=1, quiet=True)
        self._input = self._session.get_inputs()[0].name

    def logits(self, images: np.ndarray) -> np.ndarray:
        """uint8 (N, 32, 32, 3) to float32 (N, 1000)."""
        found = []
        for image in images:  # the file takes one picture at a time
            x = torch.from_numpy(image[None]).permute(0, 3, 1, 2).float() / 255
            x = F.interpolate(x, (224, 224), mode="bicubic", align_corners=False).clamp(0, 1)
            found.append(self._session.run(None, {self._input: ((x - 0.498) / 0.502).numpy()})[0])
        return np.concatenate(found)

    def groups(self, logits: np.ndarray) -> np.ndarray:
        shares = np.exp(logits - logits.max(1, keepdims=True))
        return np.stack([shares[:, list(group)].sum(1) for group in GROUPS], 1).argmax(1)

    def kinds(self, logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The best class within the group of each picture's label."""
        return np.array(
            [
                max(GROUPS[label], key=lambda k: row[k])
                for row, label in zip(logits, labels, strict=True)
            ]
        )


class Coded:
    """A codec at one setting: pictures to pictures and mean bytes."""

    def __init__(self, spec: str) -> None:
        self.name = spec
        self.codec: NeuralCodec | None = None
        if spec not in ("sources", "webp", "jxl"):
            name, _, many = spec.rpartition(":")
            self.codec, self.many = NeuralCodec.load(name, threads=1), int(many)

    def __call__(self, images: np.ndarray) -> tuple[float, np.ndarray]:
        if self.name == "sources":
            return 0.0, images
        if self.codec is None:
            how = {
                "webp": {"format": "WEBP", "quality": 0, "method": 6},
                "jxl": {"format": "JXL", "quality": 5, "effort": 7},
            }
            return through_pillow(images, **how[self.name])
        payloads = self.codec.payloads(images, iterations=self.many)
        writer = PackWriter(model=self.codec.fingerprint)
        for payload in payloads:
            writer.add(payload, 32, 32, iterations=self.many)
        return len(writer.finish()) / len(images), self.codec.decode_payloads(
            payloads, 32, 32, self.many
        )

    def told_wrong(self, images: np.ndarray) -> np.ndarray | None:
        """The pictures where the encoder is told a false class; None where it is told nothing."""
        if self.codec is None or not self.codec.words.get("classifier"):
            return None
        self.codec.tell("wrong")
        try:
            return self(images)[1]
        finally:
            self.codec.tell("answer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--models", type=Path, required=True, help="folder with efficientnet_lite0.onnx"
    )
    parser.add_argument("--part", choices=("held", "test"), default="held")
    parser.add_argument("--codec", action="append", metavar="NAME:ITERATIONS")
    parser.add_argument("--images", type=int, default=1000, help="that are judged")
    parser.add_argument(
        "--kinds", type=int, default=400, help="of these, that efficientnet looks at"
    )
    parser.add_argument(
        "--pictures", type=int, default=10_000, help="that new classifiers are trained on"
    )
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning", action=argparse.BooleanOptionalAction, default=True)
    args = parser.parse_args()
    torch.set_num_threads(1)

    train = read_labelled(args.data, part="train")
    taken, held = split(train.labels, SHARE, SEED)
    data = train if args.part == "held" else read_labelled(args.data, part="test")
    chosen = held if args.part == "held" else np.arange(len(data.labels))
    chosen = chosen[np.linspace(0, len(chosen) - 1, min(args.images, len(chosen))).astype(int)]
    images, labels = data.images[chosen], data.labels[chosen].astype(np.int64)
    taken = taken[np.linspace(0, len(taken) - 1, min(args.pictures, len(taken))).astype(int)]
    lessons, wanted = train.images[taken], train.labels[taken].astype(np.int64)

    imagenet = ImageNet(args.models / "efficientnet_lite0.onnx")
    some = np.linspace(0, len(images) - 1, min(args.kinds, len(images))).astype(int)
    kinds = imagenet.kinds(imagenet.logits(images[some]), labels[some])
    several = np.isin(labels[some], [k for k, group in enumerate(GROUPS) if len(group) > 3])
    judges: dict[str, Answer] = {}
    for name in ("inception", "watcher"):
        judges[name] = known(name)
    for seed in range(args.seeds):
        for kind in (Plain, Mixer):
            judges[f"{kind.__name__.lower()} {seed}"] = answer_of(
                taught(kind, lessons, wanted, args.epochs, seed)
            )
    print(f"{len(images)} images of CIFAR-10 (JPEG-75 copy), {args.part} part")
    print(f"new judges: {len(lessons)} pictures, {args.epochs} epochs")

    specs = [
        "sources",
        *(args.codec or ["cifar:1", "cifar:2", "cifar:3", "cifar:4", "cifar-label:4"]),
        "webp",
    ]
    if importlib.util.find_spec("pillow_jxl"):
        import pillow_jxl  # noqa: F401 - registers the format

        specs.append("jxl")
    answer = judges["inception"](images)
    learned: dict[tuple[str, int], float] = {}
    for spec in specs:
        coded = Coded(spec)
        size, found = coded(images)
        rows = [f"{name} {(judge(found) == labels).mean():.1%}" for name, judge in judges.items()]
        logits = imagenet.logits(found[some])
        same = imagenet.kinds(logits, labels[some]) == kinds
        rows.append(f"efficientnet {(imagenet.groups(logits) == labels[some]).mean():.1%}")
        rows.append(f"sub-category {same[several].mean():.1%} of {int(several.sum())}")
        print(
            f"{spec}: {size:.1f} bytes, {psnr(images, found):.2f} dB, " + ", ".join(rows),
            flush=True,
        )
        if (false := coded.told_wrong(images)) is not None:
            believed = [
                f"{name} {(judge(false) == (answer + 1) % 10).mean():.1%}"
                for name, judge in judges.items()
            ]
            print(
                f"    told a false class, believe it: {', '.join(believed)};"
                f" {psnr(images, false):.2f} dB",
                flush=True,
            )
        if args.learning:
            _, decoded = coded(lessons)
            for seed in range(args.seeds):
                network = taught(Plain, decoded, wanted, args.epochs, seed)
                learned[spec, seed] = float((answer_of(network)(images) == labels).mean())
            below = [learned["sources", seed] - learned[spec, seed] for seed in range(args.seeds)]
            own = np.mean([learned[spec, seed] for seed in range(args.seeds)])
            each = ", ".join(f"{100 * b:.1f}" for b in below)
            print(f"    trained on these, a classifier sees {own:.1%} of untouched sources", end="")
            print(
                f", {100 * np.mean(below):.1f} points below one trained on sources ({each})",
                flush=True,
            )


if __name__ == "__main__":
    main()
