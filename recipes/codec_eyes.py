"""Networks in whose eyes `cifar-seen.toml` trains beside `inception`: foreign ones, whose features
say what a picture is of.

    cd recipes
    python codec_eyes.py --data ../../shared/data/cifar10.tar.xz --out eyes [--epochs 4]
    EYES=eyes MOBILENET=../../shared/models/mobilenet_v2_1.0_224_quant.tflite \\
        vizcomp train --recipe cifar-seen.toml --data CIFAR --classifier inception ...

`residual` is a small residual network (He et al. 2016) that the second line trains on CIFAR-10, on
the classes and on how far a picture was turned (Gidaris et al. 2018), which no label tells.
`mobilenet` is MobileNetV2 (Sandler et al. 2018), trained on ImageNet, out of a quantised TFLite
file (`ai-edge-litert` reads it), on pictures enlarged to `SIDE`: it tells a thousand kinds apart.
Neither is a judge of `benchmarks/codec_honest.py`.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

SIDE = 64  # that pictures are enlarged to for `mobilenet`
HELD = 0.1, 0  # share and seed of the pictures that are left out, as the codec's recipes do


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.second = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(width), nn.BatchNorm2d(width)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = F.relu(self.norms[0](self.first(x)))
        return F.relu(x + self.norms[1](self.second(y)))


class Residual(nn.Module):
    """float32 (N, 3, H, W) in 0..1 to the logits of ten classes and of four turns, (N, 14)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for ins, outs in ((3, 32), (32, 64), (64, 128)):
            layers += [nn.Conv2d(ins, outs, 3, 2, 1, bias=False), nn.BatchNorm2d(outs), nn.ReLU()]
            layers += [Block(outs)]
        self.layers, self.last = nn.Sequential(*layers), nn.Linear(128, 14)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layers(4 * x - 2).mean((2, 3)))  # type: ignore[no-any-return]


def residual() -> nn.Module:
    """The trained one, of the folder `EYES`."""
    network = Residual()
    path = Path(os.environ.get("EYES", "eyes")) / "residual.pt"
    network.load_state_dict(torch.load(path, weights_only=True))
    return network.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


class MobileNet(nn.Module):
    """float32 (N, 3, H, W) in 0..1 to the logits of the file's 1001 classes."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        from ai_edge_litert.interpreter import Interpreter

        file = Interpreter(str(path))
        about = {one["index"]: one for one in file.get_tensor_details()}

        def constant(index: int) -> torch.Tensor:
            how = about[index]["quantization_parameters"]
            values = file.get_tensor(index).astype(np.float32) - how["zero_points"][0]
            return torch.from_numpy(values * how["scales"][0]).float()

        self.convolutions = nn.ModuleList()
        self.adds: dict[int, int] = {}  # after so many convolutions, the output of an earlier one
        made: dict[int, int] = {}  # tensors of the file by the number of convolutions before them
        for step in file._get_ops_details():
            ins, out = [int(i) for i in step["inputs"]], int(step["outputs"][0])
            if step["op_name"] in ("CONV_2D", "DEPTHWISE_CONV_2D"):
                weight, bias = constant(ins[1]), constant(ins[2])
                apart = step["op_name"] != "CONV_2D"
                weight = weight.permute(3, 0, 1, 2) if apart else weight.permute(0, 3, 1, 2)
                stride = round(about[ins[0]]["shape"][1] / about[out]["shape"][1])
                groups = len(weight) if apart else 1
                layer = nn.Conv2d(
                    weight.shape[1] * groups, len(weight), weight.shape[2], stride, groups=groups
                )
                layer.weight.data, layer.bias.data = weight.contiguous(), bias  # type: ignore[union-attr]
                self.convolutions.append(layer)
            elif step["op_name"] == "ADD":
                self.adds[len(self.convolutions)] = min(made[i] for i in ins)
            made[out] = len(self.convolutions)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(x, (SIDE, SIDE), mode="bicubic", align_corners=False)
        x = 2 * x - 1
        kept: dict[int, torch.Tensor] = {}
        wanted, last = set(self.adds.values()), len(self.convolutions) - 1
        for number, layer in enumerate(self.convolutions):
            if number == last:
                x = x.mean((2, 3), keepdim=True)
            side, stride = layer.kernel_size[0], layer.stride[0]
            if side > 1:  # "SAME" of TensorFlow
                whole = side - stride if x.shape[-1] % stride == 0 else side - 1
                x = F.pad(x, (whole // 2, whole - whole // 2) * 2)
            x = layer(x)
            widens = number == 0 or layer.groups > 1 or layer.out_channels > layer.in_channels
            if widens and number != last and not self._projects(number):
                x = F.relu6(x)
            if number + 1 in self.adds:
                x = x + kept[self.adds[number + 1]]
            if number + 1 in wanted:
                kept[number + 1] = x
        return x.flatten(1)

    def _projects(self, number: int) -> bool:
        """Whether a convolution is the third of a block: those have no ReLU."""
        before = self.convolutions[number - 1] if number else None
        return before is not None and before.groups > 1


def mobilenet() -> nn.Module:
    """That of the file `MOBILENET`."""
    path = Path(os.environ.get("MOBILENET", "mobilenet_v2_1.0_224_quant.tflite"))
    return MobileNet(path).eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def taught(images: np.ndarray, labels: np.ndarray, epochs: int, seed: int = 0) -> Residual:
    """Trains `Residual` on pictures, uint8 (N, 32, 32, 3), a quarter of them turned."""
    torch.manual_seed(seed)
    network: Any = Residual().to(memory_format=torch.channels_last)
    batch = 128
    per_epoch = len(images) // batch
    optimiser = torch.optim.SGD(
        network.parameters(), 0.2, momentum=0.9, nesterov=True, weight_decay=5e-4
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.2, total_steps=epochs * per_epoch)
    x, y = torch.from_numpy(images), torch.from_numpy(labels.astype(np.int64))
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(x))
        at = order[step % per_epoch * batch :][:batch]
        view = F.pad(x[at].permute(0, 3, 1, 2).float() / 255, (3, 3, 3, 3), mode="reflect")
        dy, dx = (int(d) for d in torch.randint(0, 7, (2,)))
        view = view[:, :, dy : dy + 32, dx : dx + 32]
        view = view.flip(3) if torch.rand(()) < 0.5 else view
        turn = torch.randint(0, 4, (batch,)) * (torch.arange(batch) % 4 == 0)
        view = torch.stack([one.rot90(int(t), (1, 2)) for one, t in zip(view, turn, strict=True)])
        logits = network(view.contiguous(memory_format=torch.channels_last))
        upright = turn == 0
        loss = F.cross_entropy(logits[upright, :10], y[at][upright], label_smoothing=0.1)
        some = torch.arange(batch) % 4 == 0
        loss = loss + 0.3 * F.cross_entropy(logits[some, 10:], turn[some])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 50 == 0:
            print(f"{step} of {epochs * per_epoch}: {loss.item():.3f}", flush=True)
    return network.eval()  # type: ignore[no-any-return]


def main() -> None:
    from vizcomp.datasets.photos import split
    from vizcomp.datasets.read import read_labelled

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="CIFAR-10")
    parser.add_argument("--out", type=Path, default=Path("eyes"))
    parser.add_argument("--epochs", type=int, default=4)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    data = read_labelled(arguments.data, part="train")
    taken, held = split(data.labels, *HELD)
    network = taught(data.images[taken], data.labels[taken], arguments.epochs)
    arguments.out.mkdir(parents=True, exist_ok=True)
    torch.save(network.state_dict(), arguments.out / "residual.pt")
    x = torch.from_numpy(data.images[held]).permute(0, 3, 1, 2).float() / 255
    with torch.no_grad():
        found = torch.cat([network(part)[:, :10].argmax(1) for part in x.split(500)]).numpy()
    print(f"right on {(found == data.labels[held]).mean():.1%} of {len(held)} held pictures")


if __name__ == "__main__":
    main()
