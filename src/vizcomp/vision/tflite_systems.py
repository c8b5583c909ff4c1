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
        super().__init__(name, path, options_of(path, text), TfliteRuntime(path))


class TfliteRuntime:
    """As `runtime.Runtime`, by LiteRT. A quantised input takes what its numbers stand for, or bytes
    where it is uint8.

    Raises:
        MissingExtraError: ai-edge-litert is not installed.
        ModelError: no TFLite.
    """

    def __init__(self, path: Path) -> None:
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as exc:
            raise MissingExtraError("ai-edge-litert", "tflite") from exc
        try:
            with _silent():
                self._interpreter = Interpreter(model_path=str(path), num_threads=1)
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError, OSError) as exc:
            raise ModelError(
                f"{path} cannot be read as a TFLite model: {first_line(exc)}", "export it again"
            ) from exc
        self._inputs = {detail["name"]: detail for detail in self._interpreter.get_input_details()}
        self._results = self._interpreter.get_output_details()
        self.slots = tuple(
            Slot(
                name,
                tuple(int(side) for side in detail["shape"]),
                _taken(detail["dtype"]),
                str(np.dtype(detail["dtype"])),
            )
            for name, detail in self._inputs.items()
        )
        self.outputs = tuple(result["name"] for result in self._results)
        # the scale that TFLite prescribes for a softmax: rounding may take much of the sum away
        self.probabilities = frozenset(
            result["name"] for result in self._results if result["quantization"] in SOFTMAX
        )
        self.metadata: Mapping[str, str] = {}

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As `runtime.Runtime.run`."""
        for name, values in feeds.items():
            detail = self._inputs[name]
            scale, zero = detail["quantization"]
            quantised = detail["dtype"] == np.int8
            numbers = (
                (np.round(values / (scale or 1)) + zero).clip(-128, 127) if quantised else values
            )
            self._interpreter.set_tensor(detail["index"], numbers.astype(detail["dtype"]))
        self._interpreter.invoke()
        return {result["name"]: self._real(result) for result in self._results}

    def _real(self, result: Mapping[str, Any]) -> npt.NDArray[Any]:
        """An output as the numbers that it stands for; label maps of whole numbers stay whole."""
        array = np.array(self._interpreter.get_tensor(result["index"]))
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
