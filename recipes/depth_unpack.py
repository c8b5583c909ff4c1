"""Weights to go on training from, out of a depth network's ONNX file.

    python recipes/depth_unpack.py src/vizcomp/bundled/compact_depth.onnx --data scenes:ROOMS:SVT \\
        --kinds metres,metres,nearness --out start

writes `start/model.safetensors`, which `vizcomp train --kind depth --set
start=start/model.safetensors` takes, and prints how far its answers are from the file's. The file
holds no batch norms: each was folded into the convolution before it. They are laid out again from
what the network makes of views of `--data`: mean and variance of each channel become the norm's
running figures, and its scale and shift are what leaves every answer as it was. Only networks whose
members share one encoder.

Beside it `start/model.json` says `--data`, `--kinds` and `--checked`, as a run's does, so that
`depth_average.py` can measure it; with `--checked` the views are of those photos alone.

    python recipes/depth_unpack.py run/checkpoint.pt --out start

takes the weights of a run that was stopped, as they were learned last, or with `--averaged` their
moving average, which `depth_average.py` measures and makes a network of.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from vizcomp.depth.compact import CompactDepth, position_planes
from vizcomp.metrics import spearman
from vizcomp.nets.compact_depth import CompactDepthNet
from vizcomp.training.depth_data import DepthTrainSettings, read_depth_data
from vizcomp.training.depth_scores import member_maps
from vizcomp.training.settings import split_list
from vizcomp.training.views import MIXED, depth_views

BATCHES, BATCH = 24, 24  # of views that the norms' figures are taken from


def widened(path: Path) -> tuple[list[dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Weights in 32 bits: of convolutions in the order they run in, and those that kept names."""
    model = onnx.load(str(path))
    given = {tensor.name for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    wanted = list(dict.fromkeys(name for node in nodes for name in node.input[1:]))
    named = list(dict.fromkeys([*wanted, *(name for name in given if name.endswith(".bias"))]))
    for name in named:
        model.graph.output.append(
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        )
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {
        "image": np.zeros((1, 96, 128, 3), np.uint8),
        "position": position_planes(96, 128)[None],
    }
    values = dict(zip(named, (torch.tensor(v) for v in session.run(named, feed)), strict=True))
    convolutions = [
        {part: values[name] for part, name in zip(("weight", "bias"), node.input[1:], strict=False)}
        for node in nodes
        if node.op_type == "Conv"
    ]
    return convolutions, values


def filled(network: CompactDepthNet, path: Path) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Sets a network's weights by a file's, its norms to a shift; the convolutions with a norm."""
    convolutions, named = widened(path)
    order: list[nn.Module] = []
    hooks = [
        m.register_forward_hook(lambda m, *_: order.append(m))
        for m in network.modules()
        if isinstance(m, (nn.Conv2d, nn.BatchNorm2d))
    ]
    with torch.no_grad():
        network(torch.zeros(1, 3, 96, 128), torch.zeros(1, 2, 24, 32))
    for hook in hooks:
        hook.remove()
    pairs = []
    with torch.no_grad():
        found = [m for m in order if isinstance(m, nn.Conv2d)]
        for module, values in zip(found, convolutions, strict=True):
            module.weight.copy_(values["weight"])
            if module.bias is not None:
                module.bias.copy_(values["bias"])
                continue
            norm: Any = order[order.index(module) + 1]
            norm.bias.copy_(values["bias"])
            norm.weight.fill_(float(np.sqrt(1 + norm.eps)))
            pairs.append((module, norm))
        for name, module in network.named_modules():
            if isinstance(module, nn.Linear):
                weight = next(
                    v
                    for k, v in named.items()
                    if k.removeprefix("members.0.").startswith(f"{name}.weight")
                )
                module.weight.copy_(weight if weight.shape == module.weight.shape else weight.T)
                module.bias.copy_(named[f"members.0.{name}.bias"])
    return pairs


def normed(
    network: CompactDepthNet,
    pairs: list[tuple[nn.Conv2d, nn.BatchNorm2d]],
    views: list[torch.Tensor],
) -> None:
    """Gives each norm the figures of its channels over views, and what then changes no answer."""
    sums = {norm: torch.zeros(3, norm.num_features, dtype=torch.float64) for _, norm in pairs}

    def count(norm: nn.Module, inputs: tuple[torch.Tensor, ...], _: torch.Tensor) -> None:
        x = inputs[0].double()
        sums[norm] += torch.stack(
            [x.mean((0, 2, 3)), x.square().mean((0, 2, 3)), torch.ones(x.shape[1])]
        )

    hooks = [norm.register_forward_hook(count) for norm in sums]
    with torch.no_grad():
        for x in views:
            network(x, torch.from_numpy(position_planes(*x.shape[2:])).expand(len(x), -1, -1, -1))
        for hook in hooks:
            hook.remove()
        for norm, (total, squares, count_) in sums.items():
            mean = (total / count_).float()
            variance = (squares / count_ - (total / count_) ** 2).clamp(min=1e-6).float()
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance)
            norm.weight.copy_((variance + norm.eps).sqrt())
            norm.bias.add_(mean)


def save(weights: dict[str, torch.Tensor], folder: Path, origin: dict[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {f"0.{name}": value.contiguous() for name, value in weights.items()},
        folder / "model.safetensors",
        origin or None,
    )


def origin_of(path: Path) -> dict[str, str]:
    """Licence and source that a file says it goes on from."""
    said = {entry.key: entry.value for entry in onnx.load(str(path)).metadata_props}
    start = "origin_"
    return {k.removeprefix(start): v for k, v in said.items() if k.startswith(start)}


def read_origin(path: Path) -> dict[str, str]:
    """The same of a file of weights."""
    with safe_open(path, "pt") as file:
        said = file.metadata() or {}
    return {name: said[name] for name in ("source", "licence") if name in said}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "file", type=Path, help="model.onnx of a run, or checkpoint.pt of one that was stopped"
    )
    parser.add_argument(
        "--data",
        default="",
        help="folders with photos/ and depth/, as in training; for an ONNX file",
    )
    parser.add_argument("--kinds", default="nearness")
    parser.add_argument("--checked", default="", help="as in training: photos kept out of it")
    parser.add_argument("--side", type=int, default=112, help="of the views")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--averaged", action="store_true", help="of a checkpoint: the average of the weights"
    )
    arguments = parser.parse_args()
    if arguments.file.suffix == ".pt":
        checkpoint = torch.load(arguments.file, weights_only=True, map_location="cpu")
        said = json.loads(checkpoint["settings"])
        said.pop("kind", None)
        start = Path(said["start"]) if said["start"] else None
        origin = read_origin(start) if start and start.is_file() else {}
        part = "average" if arguments.averaged else "model"
        save(checkpoint["task"][part], arguments.out, origin)
        card = {"kind": "depth", "network": said["network"], "settings": said, "origin": origin}
        (arguments.out / "model.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
        return
    if not arguments.data:
        parser.error("--data: views of photos are needed")
    file = CompactDepth(arguments.file)
    if not file.config.shared:
        parser.error("its members do not share an encoder")
    settings = DepthTrainSettings(
        data=arguments.data,
        kinds=arguments.kinds,
        checked=arguments.checked,
        network=file.config,
        side=arguments.side,
        start=str(arguments.file),
        licence="MIT",
    )
    folders, kinds = [Path(p) for p in split_list(arguments.data)], arguments.kinds.split(",")
    data = read_depth_data(folders, file.config, kinds, arguments.checked)
    torch.manual_seed(0)
    network = CompactDepthNet(file.config).eval()
    pairs = filled(network, arguments.file)
    views = []
    for number in range(BATCHES):
        chosen = torch.randint(len(data.names), (BATCH,)).tolist()
        views.append(depth_views(data, chosen, settings, MIXED[number % len(MIXED)][0])[0])
    normed(network, pairs, views)
    photo = data.photo(0)
    own = member_maps(file.config, [network], None, data, [0])[0].mean(1)[0].numpy()
    theirs = file(np.ascontiguousarray(photo)).depth
    rows = np.linspace(0, theirs.shape[0] - 1, own.shape[0]).round().astype(int)
    columns = np.linspace(0, theirs.shape[1] - 1, own.shape[1]).round().astype(int)
    agreed = spearman(own.ravel(), theirs[np.ix_(rows, columns)].ravel())
    origin = origin_of(arguments.file)
    save(network.state_dict(), arguments.out, origin)
    card = {
        "kind": "depth",
        "network": file.config.to_dict(),
        "settings": dataclasses.asdict(settings),
        "origin": origin,
    }
    (arguments.out / "model.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    print(
        f"{arguments.out / 'model.safetensors'}: rank correlation with the file's answer"
        f" {agreed:.4f}"
    )


if __name__ == "__main__":
    main()
