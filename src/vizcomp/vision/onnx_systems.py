"""Any ONNX model as a vision system."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, first_line
from vizcomp.vision.inputs import Slot
from vizcomp.vision.model_files import model_file, options_of
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.options import ModelOptions

_DTYPES: dict[str, Any] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
    "tensor(int32)": np.int32,
    "tensor(int64)": np.int64,
    "tensor(bool)": np.bool_,
}


class OnnxSystem(ModelSystem):
    """Any classifier, detector, segmenter or embedding network in ONNX, on one thread.

    Args:
        path: of the .onnx file.
        options: in place of NAME.json beside it.
        text: options as in the system's name.

    Raises:
        ModelError: no ONNX, an input that is no image, or outputs that cannot be read.
        SettingsError: unknown options, or several readings; it lists what to type.
    """

    def __init__(self, path: Path, options: ModelOptions | None = None, text: str = "") -> None:
        model_file(path)
        chosen = options_of(path, text) if options is None else options
        name = f"{path}:{text}" if text else str(path)
        super().__init__(name, path, chosen, OnnxRuntime(path))


class OnnxRuntime:
    """As `runtime.Runtime`, by ONNX Runtime.

    Raises:
        ModelError: no ONNX.
    """

    def __init__(self, path: Path) -> None:
        from vizcomp.weights.sessions import open_session

        try:
            self._session = open_session(str(path))
        except Exception as exc:  # ONNX Runtime has a class of its own for each cause
            raise ModelError(
                f"{path} cannot be read as an ONNX model: {first_line(exc)}", "export it again"
            ) from exc
        try:
            self.outputs = tuple(o.name for o in self._session.get_outputs())
            self.slots = tuple(
                Slot(
                    one.name,
                    tuple(side if isinstance(side, int) and side > 0 else 0 for side in one.shape),
                    _DTYPES.get(one.type),
                    one.type,
                )
                for one in self._session.get_inputs()
            )
            self.metadata: Mapping[str, str] = dict(
                self._session.get_modelmeta().custom_metadata_map
            )
        except UnicodeDecodeError as exc:
            raise ModelError(
                f"{path} is damaged: its names are no text", "export it again"
            ) from exc

    probabilities: frozenset[str] = frozenset()

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As `runtime.Runtime.run`."""
        arrays = self._session.run(None, dict(feeds))
        return dict(zip(self.outputs, (np.asarray(array) for array in arrays), strict=True))
