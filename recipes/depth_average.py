"""Averages the weights of several runs of one depth network, measures it on what they kept out, and
fits its confidence there.

    python recipes/depth_average.py depth-2 depth-3 --out depth [--pixels 12288] [--mirrored]

Runs that went on from one another lie in one valley of the loss; the mean of their weights is often
better than each (Wortsman et al., "Model soups", 2022). Writes model.safetensors, model.json and
model.onnx, as a run does. The photos measured on are those that the last run's `checked` names,
read from the folders of its settings. The other folders need a model.safetensors alone. `--pixels`
and `--mirrored` change how the network is run: see `CompactDepthConfig`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from vizcomp.nets.compact_depth import CompactDepthNet
from vizcomp.training.depth_data import DepthData, DepthTrainSettings, read_depth_data, split_photos
from vizcomp.training.depth_scores import calibrate, member_maps, rank_correlations
from vizcomp.training.export import export_depth
from vizcomp.training.settings import build, split_list


def kept_out(settings: DepthTrainSettings) -> tuple[DepthData, list[int]]:
    """The photos of a run, and the indices of those that it did not learn from."""
    folders = [Path(path) for path in split_list(settings.data)]
    data = read_depth_data(folders, settings.network, settings.kinds.split(","), settings.checked)
    return data, split_photos(data.names, 0, 0.0, settings.checked)[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--pixels", type=int, help="of the input; as in training without it")
    parser.add_argument(
        "--mirrored", action="store_true", help="the photo and its mirror image go through together"
    )
    arguments = parser.parse_args()
    card: dict[str, Any] = json.loads((arguments.runs[-1] / "model.json").read_text("utf-8"))
    settings = build(DepthTrainSettings, card["settings"])
    run = dataclasses.replace(
        settings.network,
        pixels=arguments.pixels or settings.network.pixels,
        mirrored=arguments.mirrored or settings.network.mirrored,
    )
    settings = dataclasses.replace(settings, network=run)
    found = [load_file(run / "model.safetensors") for run in arguments.runs]
    names = [name for name in found[-1] if all(name in weights for weights in found)]
    tensors = {
        name: torch.stack([f[name].double() for f in found]).mean(0).to(found[0][name].dtype)
        for name in names
    }
    weights = {name.removeprefix("0."): value for name, value in tensors.items() if name != "prior"}
    network = CompactDepthNet(settings.network)
    network.load_state_dict(weights)
    data, checked = kept_out(settings)
    maps = member_maps(settings.network, [network.eval()], None, data, checked)
    scores = rank_correlations(maps, data, checked)
    for folder in sorted(set(data.folders)):
        part = [
            score
            for score, index in zip(scores, checked, strict=True)
            if data.folders[index] == folder
        ]
        print(
            f"folder {folder + 1}: {len(part)} photos, rank correlation"
            f" {sum(part) / max(1, len(part)):.3f}"
        )
    config = dataclasses.replace(settings.network, calibration=calibrate(maps, data, checked))
    arguments.out.mkdir(parents=True, exist_ok=True)
    origin: dict[str, str] = card.get("origin", {})
    save_file(
        {name: value.contiguous() for name, value in tensors.items()},
        arguments.out / "model.safetensors",
        origin or None,
    )
    export_depth(
        config,
        [weights],
        arguments.out / "model.onnx",
        metadata={
            "licence": settings.licence,
            "data": "photos with depth maps",
            **{f"origin_{name}": text for name, text in origin.items()},
        },
    )
    card |= {"network": config.to_dict(), "validation_rank_correlation": float(scores.mean())}
    card["averaged"] = [run.name for run in arguments.runs]
    (arguments.out / "model.json").write_text(json.dumps(card, indent=2) + "\n", "utf-8")
    print(
        f"{len(checked)} photos, rank correlation {scores.mean():.3f}:"
        f" {arguments.out / 'model.onnx'}"
    )


if __name__ == "__main__":
    main()
