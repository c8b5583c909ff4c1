"""Names of vision systems, and files of models, to the systems.

    system = open_system("text")  # or text:read, inception, torchvision:NAME, PATH.onnx
    before, after = system.answers([source, result])
    compare(before, after).same

An answer is `Classes` (probabilities of classes), `Boxes` (places, perhaps with labels), `Masks`,
`Keypoints`, `Text` or an `Embedding`. Two answers compare to a score in 0..1 and to a verdict under
a tolerance. A further system joins by an entry point of the group
`vizcomp.systems`: a name, and a callable without arguments that gives a `System`.
"""

from __future__ import annotations

import difflib
import importlib.metadata
from pathlib import PurePath

from vizcomp.errors import ModelError, VizcompError
from vizcomp.vision.callables import living_system
from vizcomp.vision.onnx_systems import OnnxSystem
from vizcomp.vision.options import PROGRAM, SCRIPTS, split_suffixes
from vizcomp.vision.own_systems import OwnClassifier
from vizcomp.vision.script_systems import TorchSystem
from vizcomp.vision.system import HINT, System
from vizcomp.vision.text_system import READS, text_system
from vizcomp.vision.tflite_systems import TfliteSystem
from vizcomp.vision.torch_systems import torchvision_system
from vizcomp.weights import cache
from vizcomp.weights.options import split_name

GROUP = "vizcomp.systems"
OURS = ("inception", "watcher", "inception-v3")
NAMES = (*OURS, "text", READS)
ELSEWHERE = {  # endings of model files that are not read, and whose they are
    **dict.fromkeys((".pb", ".h5", ".hdf5", ".keras"), "Keras and TensorFlow"),
    **dict.fromkeys((".engine", ".plan", ".trt"), "TensorRT"),
    **dict.fromkeys((".mlmodel", ".mlpackage"), "Core ML"),
    **dict.fromkeys((".pdmodel", ".pdiparams"), "Paddle"),
    **dict.fromkeys((".xml", ".bin"), "OpenVINO"),
    **dict.fromkeys((".pth", ".ckpt"), "PyTorch without TorchScript"),
    **dict.fromkeys((".caffemodel", ".prototxt"), "Caffe"),
    **dict.fromkeys((".param", ".ncnn"), "ncnn"),
}


def open_system(spec: str, *, offline: bool = False) -> System:
    """A system by name.

    Args:
        spec: inception, watcher, inception-v3, text, text:read, torchvision:NAME, the path of an
            .onnx, .tflite, .torchscript, .pt, .pt2 or .safetensors file, a model that `weights add`
            named, the name of a `vizcomp.System`, or that of an entry point. A path, but of
            .safetensors, may have options: PATH.onnx:key=value,key=value; so may text, text:read
            and torchvision:NAME.
        offline: never touch the network.

    Raises:
        ModelError: unknown, damaged, or of no use here.
        SettingsError: an unknown option, or a model that can be read in several ways.
        WeightsMissingError: official weights that are not in the cache and could not be had.
        MissingExtraError: an optional package is missing.
    """
    if (living := living_system(spec)) is not None:
        return living
    if spec == "text" or spec.startswith("text:"):
        return text_system(spec)
    if spec in OURS or spec.lower().endswith(".safetensors") or cache.added_model(spec):
        return OwnClassifier(spec, offline=offline)
    if spec.startswith("torchvision:"):
        return torchvision_system(spec, offline=offline)
    if (onnx := split_name(spec, ".onnx")) is not None:
        return OnnxSystem(onnx[0], text=onnx[1])
    if (tflite := split_name(spec, ".tflite")) is not None:
        return TfliteSystem(tflite[0], tflite[1])
    if (torch := split_suffixes(spec, (*SCRIPTS, PROGRAM))) is not None:
        return TorchSystem(torch[0], torch[1])
    for point in importlib.metadata.entry_points(group=GROUP):
        if point.name == spec:
            return _plugged(point)
    ending = PurePath(spec.partition(":")[0]).suffix.lower()
    if ending in ELSEWHERE:
        raise ModelError(
            f"{spec}: models of {ELSEWHERE[ending]} are not read",
            "export it as .onnx or .tflite, or give a function of it as vizcomp.System",
        )
    near = difflib.get_close_matches(spec, NAMES, 1, 0.7)
    raise ModelError(
        f"unknown vision system {spec!r}", f"did you mean {near[0]}?" if near else HINT
    )


def _plugged(point: importlib.metadata.EntryPoint) -> System:
    try:
        system = point.load()()
    except VizcompError:
        raise
    except Exception as exc:
        raise ModelError(
            f"the vision system {point.name} of {point.value} cannot be loaded: {exc}",
            "update its package",
        ) from exc
    if not isinstance(system, System):
        raise ModelError(
            f"{point.value} gives no vision system",
            "it needs name, kind, answers and importance: see docs/vision.md",
        )
    return system
