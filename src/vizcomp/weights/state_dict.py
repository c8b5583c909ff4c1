"""State dicts that torch.save wrote, read without torch and without running what is in them.

Two forms: an archive of zip with `data.pkl` and the numbers beside it (torch 1.6 and later), and
pickles one after the other with the numbers behind them (before). The pickle is read as data
(`files.pickles`): dicts, texts, numbers and tensors.
"""

from __future__ import annotations

import dataclasses
import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp.errors import ModelError, in_one_line
from vizcomp.files.pickles import Asked, Refused, Rules, interpreted

_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001  # with which the older form begins
_TYPES: dict[str, str] = {
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "DoubleStorage": "<f8",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}
_REBUILD = "torch._utils _rebuild_tensor_v2"
_PARAMETER = "torch._utils _rebuild_parameter"
_DICT = "collections OrderedDict"
_MOST_DIMENSIONS = 8


@dataclasses.dataclass(frozen=True)
class _Storage:
    """Where a tensor's numbers lie: in the member or at the key of this name."""

    key: str
    dtype: np.dtype[Any]
    count: int


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """What the pickle says of a tensor; offset and strides count numbers."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StateDictRules(Rules):
    """What a state dict may ask for."""

    def wanted(self, name: str) -> bool:
        return name in (_REBUILD, _PARAMETER, _DICT) or (
            name.startswith("torch ") and name.removeprefix("torch ") in _TYPES
        )

    def persistent(self, identity: object) -> object:
        match identity:
            case ("storage", Asked() as kind, str() as key, str(), int() as count, *_):
                return _Storage(key, np.dtype(_TYPES[kind.removeprefix("torch ")]), count)
        raise ValueError("a reference to something that is no storage")

    def made(self, function: object, arguments: object) -> object:
        match function, arguments:
            case Asked(), () if function == _DICT:
                return {}
            case Asked(), (_Tensor() as tensor, *_) if function == _PARAMETER:
                return tensor
            case Asked(), (
                _Storage() as storage,
                int() as offset,
                tuple(shape),
                tuple(strides),
                *_,
            ) if function == _REBUILD:
                sides = (*shape, *strides)
                if len(shape) == len(strides) <= _MOST_DIMENSIONS and all(
                    type(n) is int and n >= 0 for n in (*sides, offset)
                ):
                    return _Tensor(storage, offset, shape, strides)
        raise Refused("makes an object")

    def built(self, target: object, state: object) -> None:
        if type(target) is not dict:  # of an OrderedDict: the versions of its modules
            raise Refused("sets the state of an object")


def read_state_dict(path: Path, hint: str) -> dict[str, npt.NDArray[Any]]:
    """The tensors of a state dict, or of the entry `state_dict` of a checkpoint, by name.

    Args:
        hint: what to try where it cannot be read.

    Raises:
        ModelError: it is something else, damaged, or holds other things than tensors.
    """
    try:
        data = path.read_bytes()
        arrays, storages = _zipped(data) if data.startswith(b"PK") else _in_a_row(data)
        # a whole checkpoint
        if isinstance(arrays, dict) and isinstance(arrays.get("state_dict"), dict):
            arrays = arrays["state_dict"]
        if not isinstance(arrays, dict) or not all(
            isinstance(value, _Tensor) for value in arrays.values()
        ):
            raise ModelError(f"{path} holds no state dict", hint)
        return {str(name): _array(tensor, storages) for name, tensor in arrays.items()}
    except Refused as exc:
        raise ModelError(
            f"{path} cannot be read as a state dict: it holds other things than tensors, or is"
            " damaged",
            hint,
        ) from exc
    except (
        OSError,
        EOFError,  # of zip: a member that is shorter than its header says
        ValueError,
        TypeError,
        LookupError,
        AttributeError,
        OverflowError,
        zipfile.BadZipFile,
        struct.error,
    ) as exc:
        raise ModelError(
            f"{path} cannot be read as a state dict: {in_one_line(exc)}", hint
        ) from exc
    # of zip: a method or a cipher that it does not know
    except (NotImplementedError, RuntimeError) as exc:
        raise ModelError(
            f"{path} cannot be read as a state dict: {in_one_line(exc)}", hint
        ) from exc


def _zipped(data: bytes) -> tuple[object, dict[str, bytes]]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {each.filename: each for each in archive.infolist()}
        pickled = next(name for name in [*members, ""] if name.endswith("data.pkl") or not name)
        if not pickled:
            raise ValueError("no data.pkl in the archive")
        folder = pickled.removesuffix("data.pkl")
        order = next((n for n in members if n == f"{folder}byteorder"), "")
        if order and archive.read(order).strip() != b"little":
            raise ValueError("its numbers are big-endian")
        if any(each.compress_type != zipfile.ZIP_STORED for each in members.values()):
            raise ValueError("its members are compressed, which torch never does")
        storages = {
            name.removeprefix(f"{folder}data/"): archive.read(name)
            for name in members
            if name.startswith(f"{folder}data/")
        }
        return (
            interpreted(io.BytesIO(archive.read(pickled)), len(data), _StateDictRules()),
            storages,
        )


def _in_a_row(data: bytes) -> tuple[object, dict[str, bytes]]:
    if not data:
        raise ValueError("it is empty")
    stream, rules = io.BytesIO(data), _StateDictRules()
    if (
        interpreted(stream, len(data), rules) != _MAGIC
        or interpreted(stream, len(data), rules) != _PROTOCOL
    ):
        raise ValueError("no file of torch.save")
    system = interpreted(stream, len(data), rules)
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise ValueError("its numbers are big-endian")
    value = interpreted(stream, len(data), rules)
    keys = interpreted(stream, len(data), rules)
    if not isinstance(keys, list):
        raise ValueError("no list of its storages")
    sizes = {each.storage.key: each.storage.dtype.itemsize for each in _tensors(value)}
    storages = {}
    for key in keys:
        (count,) = struct.unpack("<q", stream.read(8))
        length = count * sizes[key]
        storages[key] = stream.read(length) if 0 <= length <= len(data) else b""
    return value, storages


def _tensors(entries: object) -> list[_Tensor]:
    values = entries.values() if isinstance(entries, dict) else []
    nested = [each for value in values if isinstance(value, dict) for each in value.values()]
    return [each for each in [*values, *nested] if isinstance(each, _Tensor)]


def _array(tensor: _Tensor, storages: dict[str, bytes]) -> npt.NDArray[Any]:
    """A copy of a tensor's numbers."""
    numbers = np.frombuffer(storages[tensor.storage.key], tensor.storage.dtype)
    last = tensor.offset + sum(
        (side - 1) * step for side, step in zip(tensor.shape, tensor.strides, strict=True)
    )
    if 0 in tensor.shape:
        return np.empty(tensor.shape, numbers.dtype)
    most = 1
    for side in tensor.shape:
        most *= side
    # the second: a stride of 0 makes a large tensor of few numbers
    if last >= len(numbers) or most > len(numbers):
        raise ValueError("it ends too early")
    steps = tuple(step * numbers.itemsize for step in tensor.strides)
    return np.lib.stride_tricks.as_strided(
        numbers[tensor.offset :], tensor.shape, steps, writeable=False
    ).copy()
