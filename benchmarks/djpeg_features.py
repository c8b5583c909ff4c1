"""What a codec does to the features of vision networks, against another one at equal bytes.

A decision (the best class, a box) hardly tells settings apart on a hundred photos, and a network's
last numbers hang on few features. The maps inside a network are many numbers, so their distance
from those of the source (squared, over their energy) tells differences of a percent of the bytes on
two dozen photos. The networks are EfficientNet-lite0 and MobileNet v2 (a map of stride 16 and one
of 32, and the logits of the former; each in two views), YOLOX-nano (the three maps before its
heads) and, on street photos, RapidOCR's detector (its map of lettering).

    python benchmarks/djpeg_features.py --codec "" --codec busy=0.1 --limit 20 --skip 6

Figures are the percentage of bytes that a codec saves against `--base` for the same distance, from
the slope of the base's own qualities, with standard errors over photos; and the mean difference of
bytes at the same quality. Codecs, photos and parts are those of `djpeg_systems.py`.
"""

from __future__ import annotations

import argparse
import functools
import io
import math
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from djpeg_systems import Pixels, photos, prepared
from PIL import Image
from systems_kit import SHARED, centre, letterbox, resized, session

NATURAL = ("coco", "imagenet", "bsds")
EFFICIENTNET = ("/_blocks.10/Add_output_0", "/_blocks.14/Add_output_0")
YOLOX = ("input.463", "input.523", "input.583")
MOBILENET = (133, 160)  # tensors: the sums at the ends of blocks 11 and 15
Maps = dict[str, npt.NDArray[Any]]


@functools.cache
def opened(name: str, inner: tuple[str, ...]) -> Any:
    """An ONNX network that answers with maps inside it too."""
    import onnx

    model = onnx.load(SHARED / "models" / name)
    for output in inner:
        made = onnx.helper.make_tensor_value_info(output, onnx.TensorProto.FLOAT, None)
        model.graph.output.append(made)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        onnx.save(model, path)
        return session(path)


def efficientnet(pixels: Pixels, view: str) -> list[npt.NDArray[Any]]:
    network = opened("efficientnet_lite0.onnx", EFFICIENTNET)
    field = (centre(pixels, view) / np.float32(255) - np.float32(0.498)) / np.float32(0.502)
    entry = field.astype(np.float32).transpose(2, 0, 1)[None].copy()
    *inner, logits = network.run([*EFFICIENTNET, "y"], {network.get_inputs()[0].name: entry})
    return [*inner, logits - logits.mean()]


def yolox(pixels: Pixels) -> list[npt.NDArray[Any]]:
    network = opened("yolox_nano.onnx", YOLOX)
    field = letterbox(pixels, 416, 114, "")[0][None, :, :, ::-1].transpose(0, 3, 1, 2)
    entry = np.ascontiguousarray(field, np.float32)
    return list(network.run(list(YOLOX), {network.get_inputs()[0].name: entry}))


@functools.cache
def inside_mobilenet() -> Any:
    from ai_edge_litert.interpreter import Interpreter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it takes more memory
        network = Interpreter(
            str(SHARED / "models" / "mobilenet_v2_1.0_224_quant.tflite"),
            num_threads=1,
            experimental_preserve_all_tensors=True,
        )
    network.allocate_tensors()
    return network


def mobilenet(pixels: Pixels, view: str) -> list[npt.NDArray[Any]]:
    network = inside_mobilenet()
    entry = np.ascontiguousarray(centre(pixels, view))[None]
    network.set_tensor(network.get_input_details()[0]["index"], entry)
    network.invoke()
    found = [network.get_tensor(index).astype(np.float32) for index in MOBILENET]
    return [field - field.mean() for field in found]


@functools.cache
def text_detector() -> Any:
    import rapidocr

    return session(next((Path(rapidocr.__file__).parent / "models").glob("*det*.onnx")))


def lettering(pixels: Pixels) -> npt.NDArray[Any]:
    sides = [max(32, round(side / 32) * 32) for side in pixels.shape[:2]]
    field = resized(pixels, sides[1], sides[0], "")[:, :, ::-1] / np.float32(127.5) - 1
    entry = field.astype(np.float32).transpose(2, 0, 1)[None].copy()
    network = text_detector()
    return np.asarray(network.run(None, {network.get_inputs()[0].name: entry})[0])


def features(pixels: Pixels, kind: str) -> Maps:
    if kind == "svt":
        return {"text": lettering(pixels)}
    maps: Maps = {}
    for view, name in (("", "EfficientNet"), ("squash", "whole")):
        maps |= zip_of(name, ("16", "32", "logits"), efficientnet(pixels, view))
    for view, name in (("", "MobileNet"), ("small", "small")):
        maps |= zip_of(name, ("16", "32"), mobilenet(pixels, view))
    return maps | zip_of("YOLOX", ("8", "16", "32"), yolox(pixels))


def zip_of(name: str, inner: tuple[str, ...], found: list[npt.NDArray[Any]]) -> Maps:
    return {f"{name} {one}": field for one, field in zip(inner, found, strict=True)}


def looked(
    kind: str, path: Path, specs: list[str], qualities: list[float]
) -> npt.NDArray[np.float64]:
    """One photo: (codec, quality, 1 + maps), logarithms of bytes and of distances."""
    with Image.open(path) as file:
        truth = features(np.asarray(file.convert("RGB")), kind)
    known: dict[bytes, list[float]] = {}
    rows = []
    for spec in specs:
        encoder = prepared(path, spec)
        for quality in qualities:
            data = encoder.at(quality)
            if data not in known:
                with Image.open(io.BytesIO(data)) as file:
                    maps = features(np.asarray(file.convert("RGB")), kind)
                known[data] = [math.log(len(data))] + [
                    math.log(
                        max(1e-6, np.square(maps[n] - truth[n]).sum() / np.square(truth[n]).sum())
                    )
                    for n in truth
                ]
            rows.append(known[data])
    return np.array(rows).reshape(len(specs), len(qualities), -1)


def saved(rows: npt.NDArray[np.float64], codec: int, which: int) -> tuple[float, float]:
    """Percent of bytes at equal distance, and its standard error: (photos, codec, quality, ...)."""
    size, far = rows[:, 0, :, 0], rows[:, 0, :, which]
    x, y = size - size.mean(1, keepdims=True), far - far.mean(1, keepdims=True)
    slope = min(-0.6, float((x * y).sum() / (x * x).sum()))
    change = rows[:, codec] - rows[:, 0]
    gain = (change[:, :, which] / slope - change[:, :, 0]).mean(1)
    return 100 * float(gain.mean()), 100 * float(gain.std()) / math.sqrt(len(gain))


def main() -> None:
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("--base", default="", help="the codec to compare with")
    parser.add_argument("--codec", action="append", default=[])
    parser.add_argument("--quality", type=float, action="append", help="default 45 and 55")
    parser.add_argument("--limit", type=int, default=8, help="photos of each set")
    parser.add_argument("--text", type=int, default=0, help="street photos")
    parser.add_argument("--skip", type=int, default=0, help="the first photos of each set")
    options = parser.parse_args()
    specs, qualities = [options.base, *options.codec], options.quality or [45.0, 55.0]
    jobs = photos("choose", NATURAL, options.limit)[len(NATURAL) * options.skip :]
    if options.text:
        jobs += photos("choose", ("svt",), options.text)[options.skip :]
    for natural in (True, False):
        mine = [job for job in jobs if (job[0] != "svt") == natural]
        if not mine:
            continue
        rows = np.array([looked(*job, specs, qualities) for job in mine])
        names = list(features(np.zeros((64, 64, 3), np.uint8), mine[0][0]))
        print(f"| codec ({len(mine)} photos) | bytes | " + " | ".join(names) + " |")
        print("| --- " * (len(names) + 2) + "|")
        for codec, spec in enumerate(specs[1:], start=1):
            bytes_ = 100 * math.expm1((rows[:, codec] - rows[:, 0])[:, :, 0].mean())
            cells = [
                "{:+.1f} ± {:.1f}".format(*saved(rows, codec, which))
                for which in range(1, len(names) + 1)
            ]
            print(f"| {spec or 'default'} | {bytes_:+.1f}% | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
