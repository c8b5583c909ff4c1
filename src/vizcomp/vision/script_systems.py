"""Any TorchScript model as a vision system. Needs torch, by the extra `train`."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError, ModelError, first_line
from vizcomp.files.foreign import read_object
from vizcomp.vision.inputs import Slot
from vizcomp.vision.model_files import model_file, options_of
from vizcomp.vision.models import ModelSystem

_CONFIG = "config.txt"  # in which Ultralytics says what the model is, as JSON


class TorchScriptSystem(ModelSystem):
    """Any classifier, detector, segmenter, pose or embedding network that `torch.jit.save` wrote,
    on the processor.

    Args:
        path: of the .torchscript or .pt file.
        text: options as in the system's name; the file does not say its input's size: option
            `size`.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError, SettingsError: as `OnnxSystem`.
    """

    def __init__(self, path: Path, text: str = "") -> None:
        model_file(path)
        name = f"{path}:{text}" if text else str(path)
        super().__init__(name, path, options_of(path, text), TorchScriptRuntime(path))


class TorchScriptRuntime:
    """As `runtime.Runtime`, by torch.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: no TorchScript.
    """

    slots: tuple[Slot, ...] = (Slot("image", (0, 3, 0, 0), np.float32),)
    outputs: tuple[str, ...] = ()
    probabilities: frozenset[str] = frozenset()

    def __init__(self, path: Path) -> None:
        try:
            import torch
        except ImportError as exc:
            raise MissingExtraError("torch", "train") from exc
        extra = {_CONFIG: ""}
        try:
            with warnings.catch_warnings():
                # the way of storing is old: people have such files
                warnings.simplefilter("ignore", FutureWarning)
                opened = torch.jit.load(str(path), map_location="cpu", _extra_files=extra)  # type: ignore[no-untyped-call]
        except (RuntimeError, ValueError, OSError) as exc:
            raise ModelError(
                f"{path} cannot be read as TorchScript: {first_line(exc)}",
                "save the model by torch.jit.save(torch.jit.trace(...)), or give it as"
                " vizcomp.System(function, kind=...)",
            ) from exc
        self._module = opened.eval()
        self.metadata: Mapping[str, str] = _said(extra[_CONFIG])

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As `runtime.Runtime.run`; outputs without a name are output0, output1, ..."""
        import torch

        with torch.inference_mode():
            outputs = self._module(*(torch.from_numpy(values) for values in feeds.values()))
        if isinstance(outputs, Mapping):
            named = dict(outputs)
        else:
            several = outputs if isinstance(outputs, tuple | list) else [outputs]
            named = {f"output{at}": one for at, one in enumerate(several)}
        return {name: one.numpy() for name, one in named.items() if isinstance(one, torch.Tensor)}


def _said(config: str | bytes) -> dict[str, str]:
    """Metadata as texts; none where they cannot be read."""
    try:
        values = read_object(config or "{}")
    except ValueError:
        return {}
    said = {key: value if isinstance(value, str) else repr(value) for key, value in values.items()}
    if isinstance(names := values.get("names"), dict):
        said["names"] = repr(
            {
                int(key) if key.isdecimal() and len(key) < 10 else key: name
                for key, name in names.items()
            }
        )
    return said
