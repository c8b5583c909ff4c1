"""Any TorchScript model, or program of torch.export, as a vision system. Needs torch, by the extra
`train`."""

from __future__ import annotations

import re
import types
import warnings
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import MissingExtraError, ModelError, first_line
from vizcomp.files.foreign import read_object
from vizcomp.vision.inputs import Slot
from vizcomp.vision.model_files import model_file, options_of
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.options import PROGRAM

DTYPES = {
    name: getattr(np, name)
    for name in ("uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64")
}
HINT_COMPUTES = "give a model that only computes"
MOST_CODE = 64 << 20  # bytes of one file of TorchScript's code
# blanks, ends of lines and comments may stand before the bracket
_OPENS_FILES = re.compile(rb"\b(?:save|from_file)(?:[\s\\]|#[^\n]*\n)*\(")
_CONFIG = "config.txt"  # in which Ultralytics says what the model is, as JSON


class TorchSystem(ModelSystem):
    """Any classifier, detector, segmenter, pose or embedding network that `torch.jit.save` or
    `torch.export.save` wrote, on the processor. No Python code of the file is run.

    Args:
        path: of the .torchscript or .pt file, or of the .pt2 file.
        text: options as in the system's name; TorchScript does not say its input's size: option
            `size`.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError, SettingsError: as `OnnxSystem`.
    """

    def __init__(self, path: Path, text: str = "") -> None:
        model_file(path)
        name = f"{path}:{text}" if text else str(path)
        runtime = ProgramRuntime if path.suffix.lower() == PROGRAM else TorchScriptRuntime
        super().__init__(name, path, options_of(path, text), runtime(path))


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
        _need_torch()
        import torch

        check_script(path)
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
        return _answered(self._module, list(feeds.values()))


class ProgramRuntime:
    """As `runtime.Runtime`, by torch.

    Raises:
        MissingExtraError: torch is not installed.
        ModelError: no program, or one that needs more than operators.
    """

    probabilities: frozenset[str] = frozenset()
    metadata: Mapping[str, str] = types.MappingProxyType({})

    def __init__(self, path: Path) -> None:
        _need_torch()
        from vizcomp.nets import exported

        self._program = exported.load(path)
        self.outputs = self._program.outputs
        self.slots = tuple(
            Slot(
                one.name, one.shape, DTYPES.get(said := str(one.dtype).removeprefix("torch.")), said
            )
            for one in self._program.inputs
        )

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        """As `runtime.Runtime.run`."""
        return _answered(self._program, [feeds[slot.name] for slot in self.slots])


def _need_torch() -> None:
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("torch", "train") from exc


def _answered(module: Any, given: Sequence[npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """What a module gives for arrays; outputs without a name are output0, output1, ..."""
    import torch

    with torch.inference_mode():
        outputs = module(*(torch.from_numpy(values) for values in given))
    if isinstance(outputs, Mapping):
        named = dict(outputs)
    else:
        several = outputs if isinstance(outputs, tuple | list) else [outputs]
        named = {f"output{at}": one for at, one in enumerate(several)}
    return {name: one.numpy() for name, one in named.items() if isinstance(one, torch.Tensor)}


def check_script(path: Path) -> None:
    """TorchScript runs no Python code, but it may open files.

    Raises:
        ModelError: this one does.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            codes = [name for name in archive.namelist() if "/code/" in name]
            for name in codes:
                with archive.open(name) as code:
                    text = code.read(MOST_CODE + 1)
                if len(text) > MOST_CODE:  # what is beyond would be read by nobody
                    raise ModelError(f"{path}: {name} is too large", HINT_COMPUTES)
                if _OPENS_FILES.search(text):
                    raise ModelError(f"{path}: its code opens files", HINT_COMPUTES)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, zlib.error):
        return  # torch says what is wrong


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
