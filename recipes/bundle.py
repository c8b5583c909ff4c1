"""Puts a run's model into the package:
`python recipes/bundle.py RUN NAME [--classifier inception] [--iterations 3]`.

Takes RUN/model.safetensors to src/vizcomp/bundled/NAME.safetensors; of the depth network, NAME
compact_depth, RUN/model.onnx and RUN/model.json to NAME.onnx and NAME.json. A codec names the
classifier whose answer its encoder is told; in the package that is a bundled name instead of the
path it had while training.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file

BUNDLED = Path(__file__).parents[1] / "src" / "vizcomp" / "bundled"


def bundle_depth(run: Path, name: str) -> None:
    """The depth network's ONNX file and, beside it, what `weights verify` and the card go by."""
    network = (run / "model.onnx").read_bytes()
    words = json.loads((run / "model.json").read_text("utf-8"))
    for key in ("data", "start", "pretrain"):  # paths of the machine it was trained on
        words["settings"].pop(key, None)
    words |= {
        "licence": words["settings"].get("licence") or "MIT",
        "card": "docs/models/compact-depth.md",
        "sha256": hashlib.sha256(network).hexdigest(),
    }
    (BUNDLED / f"{name}.onnx").write_bytes(network)
    (BUNDLED / f"{name}.json").write_text(json.dumps(words, indent=2) + "\n", "utf-8")
    print(f"{name}.onnx", len(network), words["sha256"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    parser.add_argument("--classifier", default="")
    parser.add_argument("--iterations", type=int, help="of encode, unless it is told how many")
    args = parser.parse_args()
    if args.name == "compact_depth":
        bundle_depth(args.run, args.name)
        return
    with safe_open(args.run / "model.safetensors", "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
        words = json.loads(file.metadata()["vizcomp"])
    if args.classifier:  # every installation has it: the codec's file need not
        words["classifier"] = args.classifier
        words.pop("classifier_file", None)
        tensors = {
            name: value for name, value in tensors.items() if not name.startswith("classifier.")
        }
    if args.iterations:
        words["default_iterations"] = args.iterations
    # paths of the machine it was trained on
    for key in ("classifier", "watching", "start", "data"):
        words.get("settings", {}).pop(key, None)
    words.pop("data", None)
    target = BUNDLED / f"{args.name}.safetensors"
    save_file(tensors, target, metadata={"vizcomp": json.dumps(words)})
    target.chmod(0o644)
    print(target.name, target.stat().st_size, hashlib.sha256(target.read_bytes()).hexdigest())


if __name__ == "__main__":
    main()
