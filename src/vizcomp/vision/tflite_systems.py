"""Any .tflite model as a vision system. Needs the extra `tflite`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError, ModelError, first_line
from vizcomp.vision import layouts
from vizcomp.vision.inputs import Slot
from vizcomp.vision.model_files import model_file, options_of
from vizcomp.vision.models import ModelSystem

SOFTMAX = ((1 / 256, 0), (1 / 256, -128))  # scale and zero of quantised probabilities


class TfliteSystem(ModelSystem):
    """Any classifier, detector, segmenter or embedding network in TFLite, on one thread; quantised
    ones too.

    Args:
        path: of the .tflite file.
        text: options as in the system's name.

    Raises:
        MissingExtraError: ai-edge-litert is not installed.
        ModelError, SettingsError: as `OnnxSystem`.
    """

    def __init__(self, path: Path, text: str = "") -> None:
        model_file(path)
        name = f"{path}:{text}" if text else str(path)
        options = options_of(path, text)
        super().__init__(name, path, options, TfliteRuntime(path, options.signature, name))


class TfliteRuntime:
    """As `runtime.Runtime`, by LiteRT. A quantised input takes what its numbers stand for, or bytes
    where it is uint8.

    Args:
        path: of the .tflite file.
        signature: the one that is run, of a file with several.
        name: of the model as it was typed, for messages.

    Raises:
        MissingExtraError: ai-edge-litert is not installed.
        ModelError: no TFLite, or no such signature.
        SettingsError: it has several signatures, and none is said.
    """

    def __init__(self, path: Path, signature: str = "", name: str = "") -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as exc:
            raise MissingExtraError("ai-edge-litert", "tflite") from exc
        name = name or str(path)
        self._runner: Any = None
        self._ran = False
        try:
            with _silent():
                self._interpreter = Interpreter(model_path=str(path), num_threads=1)
                self.signatures = tuple(sorted(self._interpreter.get_signature_list()))
                if signature in self.signatures:
                    self._runner = self._interpreter.get_signature_runner(signature)
                else:
                    self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as exc:
            raise ModelError(
                f"{path} cannot be read as a TFLite model: {first_line(exc)}", "export it again"
            ) from exc
        if signature and signature not in self.signatures:
            there = ", ".join(self.signatures) or "none"
            raise ModelError(f"{name}: it has no signature {signature}", f"there are {there}")
        if len(self.signatures) > 1 and not signature:
            choices = [f"signature={one}" for one in self.signatures]
            raise layouts.asked(name, "which of its signatures answers?", choices)
        self._inputs: dict[str, Any]
        self._results: dict[str, Any]
        if self._runner is not None:
            self._inputs = self._runner.get_input_details()
            self._results = self._runner.get_output_details()
        else:
            sides = self._interpreter.get_input_details(), self._interpreter.get_output_details()
            self._inputs, self._results = ({one["name"]: one for one in side} for side in sides)
        self.slots = tuple(
            Slot(name, _open(detail), _taken(detail["dtype"]), str(np.dtype(detail["dtype"])))
            for name, detail in self._inputs.items()
        )
        self._shapes = {name: tuple(one["shape"]) for name, one in self._inputs.items()}
        self.outputs = tuple(self._results)
        # the scale that TFLite prescribes for a softmax: rounding may take much of the sum away
        self.probabilities = frozenset(
            name for name, result in self._results.items() if result["quantization"] in SOFTMAX
        )
        self.metadata: Mapping[str, str] = {}

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As `runtime.Runtime.run`."""
        given = {name: _quantised(values, self._inputs[name]) for name, values in feeds.items()}
        if self._runner is not None:
            with contextlib.nullcontext() if self._ran else _silent():
                answers = self._runner(**given)
            self._ran = True
            return {name: _real(answers[name], result) for name, result in self._results.items()}
        for name, numbers in given.items():
            index = self._inputs[name]["index"]
            if self._shapes.get(name) != numbers.shape:
                with _silent():
                    self._interpreter.resize_tensor_input(index, numbers.shape)
                    self._interpreter.allocate_tensors()
                self._shapes[name] = numbers.shape
            self._interpreter.set_tensor(index, numbers)
        self._interpreter.invoke()
        return {
            name: _real(np.array(self._interpreter.get_tensor(result["index"])), result)
            for name, result in self._results.items()
        }


def _open(detail: Mapping[str, Any]) -> tuple[int, ...]:
    """An input's shape, 0 for sides that are open; the batch is as the file has it, since few
    models can change that."""
    shape = tuple(int(side) for side in detail["shape"])
    signature = tuple(int(side) for side in detail.get("shape_signature", ())) or shape
    return tuple(
        side if at == 0 or said >= 0 else 0
        for at, (side, said) in enumerate(zip(shape, signature, strict=True))
    )


def _quantised(values: npt.NDArray[Any], detail: Mapping[str, Any]) -> npt.NDArray[Any]:
    """An input as its tensor holds it."""
    scale, zero = detail["quantization"]
    if detail["dtype"] == np.int8:
        values = (np.round(values / (scale or 1)) + zero).clip(-128, 127)
    return np.asarray(values.astype(detail["dtype"]))


def _real(array: npt.NDArray[Any], result: Mapping[str, Any]) -> npt.NDArray[Any]:
    """An output as the numbers that it stands for; label maps of whole numbers stay whole."""
    scale, zero = result["quantization"]
    if array.dtype in (np.uint8, np.int8) and scale:
        return np.asarray((array.astype(np.float32) - zero) * scale)
    return array


def _taken(dtype: Any) -> Any:
    """The dtype that an input takes: int8 takes what its numbers stand for."""
    known = (np.float32, np.float16, np.uint8, np.int32, np.int64, np.bool_)
    return np.float32 if dtype == np.int8 else next((each for each in known if dtype == each), None)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """LiteRT tells standard error which delegate it made, past Python: the descriptor itself is
    turned away."""
    before = os.dup(2)
    away = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(away, 2)
        yield
    finally:
        os.dup2(before, 2)
        os.close(before)
        os.close(away)
