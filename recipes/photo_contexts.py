"""The context model of a trained codec for photos, fitted anew on more parts of more photos, with
more sets.

    python recipes/photo_contexts.py RUN/model.safetensors --data FOLDERS --parts 1200 --sets 16 \\
        -o FITTED

The networks stay. Photos that the training held are kept out, and show what it brings: bits a pixel
of each iteration are printed, coded with the context model of before and with the new one.
`FITTED/model.safetensors` is the codec.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from vizcomp.datasets.photos import each_photo, find_photos
from vizcomp.graphs.recurrent import RecurrentConfig
from vizcomp.nets.recurrent import RecurrentCodec
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.models import read_model
from vizcomp.training.codec import load_weights, save_codec
from vizcomp.training.contexts import SIDE, fit_contexts
from vizcomp.training.settings import split_list
from vizcomp.vzc import coding


def main() -> None:
    """Write the codec and print what its iterations cost."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", required=True, help="folders of photos, as `vizcomp train` takes")
    parser.add_argument("--parts", type=int, default=1200, help=f"of {SIDE} pixels a side")
    parser.add_argument("--sets", type=int, default=16, help="of contexts for each bit")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("-o", "--output", type=Path, required=True)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    about, _ = read_model(asked.model)
    network = RecurrentCodec(RecurrentConfig.from_dict(about["network"]))
    load_weights(asked.model, network)
    metadata = {key: value for key, value in about.items() if key not in ("kind", "network")}

    names = set(metadata["settings"].get("held", []))
    paths = find_photos([Path(one) for one in split_list(asked.data)])
    photos = list(each_photo([path for path in paths if path.stem not in names], min_side=SIDE))
    held = list(each_photo([path for path in paths if path.stem in names], min_side=SIDE))
    print(f"{asked.parts} parts of {len(photos)} photos; {len(held)} held", flush=True)
    new, arrays = fit_contexts(
        network, metadata, photos, most=asked.parts, seed=asked.seed, sets=asked.sets
    )
    asked.output.mkdir(parents=True, exist_ok=True)
    save_codec(asked.output / "model.safetensors", network, metadata, arrays)

    if not held:
        return
    before = NeuralCodec.load(asked.model, threads=1)
    codes = [before.codes(photo, iterations=before.iterations) for photo in held]
    for name, context in (("before", before.context), ("now", new)):
        bits = np.array([np.cumsum(_costs(context, one)) for one in codes])
        shares = bits / [[photo.shape[0] * photo.shape[1]] for photo in held]
        print(f"{name}: {' '.join(f'{share:.4f}' for share in shares.mean(0))} bits a pixel")


def _costs(context: coding.ContextModel, codes: list[coding.Bits]) -> list[float]:
    return [coding.cost_bits(context, [plane], codes[:t]) for t, plane in enumerate(codes)]


if __name__ == "__main__":
    main()
