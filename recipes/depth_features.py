"""Teaches the depth network's encoder what a published classifier sees: the start of
`compact_depth.toml`.

    python recipes/depth_features.py --teacher ../shared/models/efficientnet_lite0.onnx \\
        --out start.safetensors \\
        --photos ../shared/data/bsds --photos ../shared/data/svt/photos --photos
        ../shared/data/depth/rooms/photos [--start FILE]

A labelled set of a million photos is not at hand, a network that learned from one is. For crops of
photos the encoder learns to give the classifier's maps at 1/8, 1/16 and 1/32 and its answer (Hinton
et al., "Distilling the knowledge in a neural network", 2015; Romero et al., "FitNets", 2015, for
the maps). No weight of the teacher is copied. `--start` is the model.safetensors of an earlier
network, as of `vizcomp train --kind depth --set pretrain=CIFAR`.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from onnx import helper, numpy_helper
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from vizcomp.depth.compact import CompactDepthConfig
from vizcomp.nets.compact_depth import CompactDepthNet
from vizcomp.training.settings import read_recipe

MAPS = (
    "/_blocks.4/Add_output_0",
    "/_blocks.10/Add_output_0",
    "/_blocks.15/_project_conv/Conv_output_0",
)
POOLED = "/_avg_pooling/GlobalAveragePool_output_0"
WIDTHS = (40, 112, 320)
SIDE, TEACHER_SIDE = 128, 224


class Teacher:
    """EfficientNet-Lite0 with its inner maps as outputs, for batches."""

    def __init__(self, path: Path, threads: int) -> None:
        model = onnx.load(path)
        graph = model.graph
        last = next(node for node in graph.node if node.op_type == "Gemm")
        arrays = {i.name: numpy_helper.to_array(i) for i in graph.initializer}
        self.weights, self.bias = arrays[last.input[1]], arrays[last.input[2]]
        for node in [node for node in graph.node if last.input[0] in node.output] + [last]:
            graph.node.remove(node)  # it flattens a batch of one only
        del graph.output[:]
        graph.output.extend(
            helper.make_tensor_value_info(name, 1, None) for name in (*MAPS, POOLED)
        )
        graph.input[0].type.tensor_type.shape.dim[0].dim_param = "n"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, 3
        self.session = onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.name = graph.input[0].name

    def __call__(self, crops: npt.NDArray[np.uint8]) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Crops (N, 224, 224, 3) to the three maps and the logits (N, 1000)."""
        x = (crops.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.498) / 0.502
        *maps, pooled = self.session.run([*MAPS, POOLED], {self.name: np.ascontiguousarray(x)})
        logits = pooled.reshape(len(crops), -1) @ self.weights.T + self.bias
        return [torch.from_numpy(m) for m in maps], torch.from_numpy(logits)


def crops(
    photos: list[npt.NDArray[np.uint8]], rng: np.random.Generator, count: int
) -> tuple[npt.NDArray[np.uint8], torch.Tensor]:
    """Random crops for the teacher, (N, 224, 224, 3), and the same for the encoder, float32 (N, 3,
    128, 128)."""
    large, small = [], []
    for _ in range(count):
        photo = photos[rng.integers(len(photos))]
        h, w = photo.shape[:2]
        side = math.sqrt(math.exp(rng.uniform(math.log(0.12), 0))) * min(h, w)
        aspect = math.exp(rng.uniform(-0.35, 0.35))
        tall, wide = min(h, max(8, int(side * aspect))), min(w, max(8, int(side / aspect)))
        y, x = rng.integers(h - tall + 1), rng.integers(w - wide + 1)
        crop = Image.fromarray(photo[y : y + tall, x : x + wide])
        pair = [
            np.asarray(crop.resize((n, n), Image.Resampling.BILINEAR)) for n in (TEACHER_SIDE, SIDE)
        ]
        step = -1 if rng.random() < 0.5 else 1
        large.append(pair[0][:, ::step])
        small.append(pair[1][:, ::step])
    return np.stack(large), torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 255


def recoloured(x: torch.Tensor) -> torch.Tensor:
    """Other gamma, saturation, contrast, brightness and tint, and noise."""

    def draw(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return torch.empty(len(x), channels, 1, 1).uniform_(low, high)

    x = x.clamp(0, 1) ** torch.exp(draw(-0.35, 0.35))
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * draw(0.3, 1.4)
    level = x.mean((1, 2, 3), keepdim=True)
    x = level + (x - level) * draw(0.7, 1.3) + draw(-0.12, 0.12)
    return x * draw(0.88, 1.12, 3) + torch.randn_like(x) * draw(0, 0.03)


def read_photos(folders: list[Path]) -> list[npt.NDArray[np.uint8]]:
    photos = []
    for folder in folders:
        for path in sorted(
            p for p in folder.iterdir() if p.suffix.lower() in (".jpg", ".jpeg", ".png")
        ):
            with Image.open(path) as file:
                photos.append(np.asarray(file.convert("RGB")))
    return photos


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument(
        "--photos", type=Path, action="append", required=True, help="a folder; repeatable"
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--start", type=Path, default=None)
    parser.add_argument(
        "--recipe", type=Path, default=Path(__file__).with_name("compact_depth.toml")
    )
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)
    photos = read_photos(arguments.photos)
    teacher = Teacher(arguments.teacher, arguments.threads)
    config = CompactDepthConfig.from_dict(read_recipe(arguments.recipe)["network"])
    network: Any = CompactDepthNet(config)
    if arguments.start:
        weights = {
            name.removeprefix("0."): value for name, value in load_file(arguments.start).items()
        }
        own = network.state_dict()
        network.load_state_dict(
            {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}, strict=False
        )
    n2, n3 = config.channels[2:]
    heads = nn.ModuleList(
        [nn.Conv2d(n, w, 1) for n, w in zip((n2, n3, n3), WIDTHS, strict=True)]
        + [nn.Linear(2 * n3, 1000)]
    )
    sample = [teacher(crops(photos, rng, 32)[0])[0] for _ in range(6)]
    joined = [torch.cat([maps[k] for maps in sample]) for k in range(3)]
    mean = [m.mean((0, 2, 3), keepdim=True) for m in joined]
    spread = [m.std((0, 2, 3), keepdim=True) + 1e-3 for m in joined]
    encoder = [p for name, p in network.named_parameters() if name.startswith(("stem.", "stage"))]
    rates = (1.5e-3, 3e-3)
    groups = [
        {"params": encoder, "lr": rates[0]},
        {"params": list(heads.parameters()), "lr": rates[1]},
    ]
    optimiser = torch.optim.AdamW(groups, weight_decay=0.02)
    network.train().to(memory_format=torch.channels_last)
    for step in range(arguments.steps):
        for group, rate in zip(optimiser.param_groups, rates, strict=True):
            group["lr"] = (
                rate
                * min(1.0, (step + 1) / 60)
                * (0.5 + 0.5 * math.cos(math.pi * step / arguments.steps))
            )
        large, small = crops(photos, rng, arguments.batch)
        maps, logits = teacher(large)
        x = recoloured(small).contiguous(memory_format=torch.channels_last)
        _, at8, at16 = network.features(x)
        answers = [heads[0](at8), heads[1](at16), heads[2](F.avg_pool2d(at16, 2))]
        losses = []
        for answer, map_, m, s in zip(answers, maps, mean, spread, strict=True):
            target = F.interpolate(
                ((map_ - m) / s).clamp(-4, 4), size=answer.shape[2:], mode="area"
            )
            losses.append(F.mse_loss(answer, target))
        found = heads[3](torch.cat([at16.mean((2, 3)), at16.amax((2, 3))], 1))
        told = F.kl_div(
            F.log_softmax(found / 2, 1), F.softmax(logits / 2, 1), reduction="batchmean"
        )
        loss = 0.5 * losses[0] + losses[1] + losses[2] + 0.1 * told
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([*network.parameters(), *heads.parameters()], 2.0)
        optimiser.step()
        if (step + 1) % 50 == 0:
            print(
                step + 1, " ".join(f"{float(v.detach()):.3f}" for v in (*losses, told)), flush=True
            )
    save_file(
        {name: value.contiguous() for name, value in network.state_dict().items()}, arguments.out
    )


if __name__ == "__main__":
    main()
