"""Programs of `torch.export` (.pt2) read as data, and run operator by operator.

`torch.export.load` runs what is in a file: it unpickles weights, constants and sample inputs, and
evaluates texts as Python (sizes by sympy, guards, the graph's own source). Here the graph is read
from its JSON, weights are numbers in the archive, and an operator is one of `LIBRARIES`. Nothing
else of a file is looked at.
"""

from __future__ import annotations

import dataclasses
import json
import math
import operator
import os
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch._ops import OpOverload

from vizcomp.errors import ModelError, first_line

MOST_GRAPH = 64 << 20  # bytes of JSON; a large network has one or two million
LIBRARIES = ("aten", "prims", "torchvision")  # of operators, which compute and do nothing else
DTYPES = {  # by their numbers in the format
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
MEMORY = {
    1: torch.contiguous_format,
    2: torch.channels_last,
    3: torch.channels_last_3d,
    4: torch.preserve_format,
}
HINT = (
    "make an ONNX file of it where you trust it:"
    " torch.onnx.export(torch.export.load(FILE), f=..., dynamo=True)"
)
AGAIN = "export it again by torch.export.export(module.eval(), ...) and torch.export.save"

_PYTHON: dict[str, Callable[..., Any]] = {
    **{
        f"_operator.{name}": getattr(operator, name)
        for name in (
            *("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "neg", "pos"),
            *("eq", "ne", "lt", "le", "gt", "ge", "and_", "or_", "getitem"),
        )
    },
    **{f"math.{name}": getattr(math, name) for name in ("ceil", "floor", "trunc", "sqrt")},
    "torch.sym_int": int,
    "torch.sym_float": float,
    "torch.sym_not": operator.not_,
    "torch.sym_max": max,
    "torch.sym_min": min,
    "torch._sym_sqrt": math.sqrt,
}


@dataclasses.dataclass(frozen=True)
class ProgramInput:
    """An input of a program: its shape, 0 where it is open, and its dtype."""

    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype


@dataclasses.dataclass(frozen=True)
class _Step:
    """One operator: where its arguments come from, and the names of what it gives."""

    call: Callable[..., Any]
    positional: tuple[Any, ...]
    named: Mapping[str, Any]
    gives: tuple[Any, ...]
    forget: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class _Value:
    """An argument that an earlier step gives."""

    name: str


class ExportedProgram(nn.Module):
    """A program as a module: tensors in, in the order of `inputs`; out come tensors by name.

    Attributes:
        inputs: the user's.
        outputs: names; those of a dict are its keys, others output0, output1, ...
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        with _Archive(path) as archive:
            words = archive.graph()
            module = words["graph_module"]
            graph, signature = module["graph"], module["signature"]
            stored = {**archive.tensors("weights"), **archive.tensors("constants")}
        self._names: dict[str, str] = {}  # in the graph, to that of the module's tensor
        self._constants: dict[str, Any] = {}
        self.inputs = self._bind(signature["input_specs"], graph["tensor_values"], stored)
        self._given = [
            _argument(_only(one, "user_output")["arg"]) for one in signature["output_specs"]
        ]
        self.outputs = _names_of(module, len(self._given))
        self._steps = _with_ends([_step(node) for node in graph["nodes"]], self._given)

    def _bind(
        self,
        specs: Sequence[Mapping[str, Any]],
        values: Mapping[str, Any],
        stored: Mapping[str, torch.Tensor],
    ) -> tuple[ProgramInput, ...]:
        inputs = []
        fields = {
            "parameter": "parameter_name",
            "buffer": "buffer_name",
            "tensor_constant": "tensor_constant_name",
        }
        for spec in specs:
            ((kind, one),) = spec.items()
            if kind == "user_input":
                inputs.append(_input(one["arg"], values))
            elif kind == "constant_input":
                ((form, value),) = one["value"].items()
                self._constants[str(one["name"])] = None if form == "as_none" else value
            elif kind in fields:
                name = str(one["arg"]["name"])
                tensor = stored[str(one[fields[kind]])]
                self._names[name] = f"tensor{len(self._names)}"
                self.register_buffer(self._names[name], tensor)
            else:
                raise _Unfit(f"it takes {kind.replace('_', ' ')}s, which are no tensors")
        return tuple(inputs)

    def forward(self, *inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        """Outputs by name.

        Args:
            inputs: one tensor for each of `self.inputs`.
        """
        known: dict[str, Any] = dict(self._constants)
        known |= {name: getattr(self, own) for name, own in self._names.items()}
        known |= {one.name: given for one, given in zip(self.inputs, inputs, strict=True)}
        for step in self._steps:
            positional = [_filled(one, known) for one in step.positional]
            named = {name: _filled(one, known) for name, one in step.named.items()}
            result = step.call(*positional, **named)
            for name, value in _assigned(step.gives, result):
                known[name] = value
            for name in step.forget:
                del known[name]
        given = zip(self.outputs, (_filled(one, known) for one in self._given), strict=True)
        return {name: value for name, value in given if isinstance(value, torch.Tensor)}


def load(path: Path) -> ExportedProgram:
    """A program from its file, in the mode that it was exported in.

    Raises:
        ModelError: it is not there, no such program, damaged, or needs more than operators.
    """
    if not os.path.isfile(path):
        raise ModelError(f"{path} is not there", "check the path")
    try:
        return ExportedProgram(path)
    except _Unfit as exc:
        raise ModelError(f"{path}: {exc}", exc.hint) from exc
    except (
        *(zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError, MemoryError),
        *(AttributeError, KeyError, IndexError, TypeError, ValueError, RecursionError),
    ) as exc:
        raise ModelError(
            f"{path} cannot be read as a program of torch.export: {first_line(exc)}", AGAIN
        ) from exc


class _Unfit(Exception):
    """A program that is well formed, but not for here."""

    def __init__(self, what: str, hint: str = HINT) -> None:
        super().__init__(what)
        self.hint = hint


class _Archive:
    """The ZIP archive of a program; its parts are stored as they are, so that none is larger than
    the file."""

    def __init__(self, path: Path) -> None:
        self._zip = zipfile.ZipFile(path)
        names = {name.partition("/")[2]: name for name in self._zip.namelist()}
        if "archive_format" not in names:
            old = "serialized_exported_program.json" in self._zip.namelist()
            self._zip.close()
            raise _Unfit(
                "it was written before torch 2.8" if old else "it is no program of torch.export",
                AGAIN,
            )
        self._names = names
        if "byteorder" in names and self._part("byteorder") != sys.byteorder.encode():
            raise _Unfit("its numbers are of another byte order", AGAIN)

    def __enter__(self) -> _Archive:
        return self

    def __exit__(self, *error: object) -> None:
        self._zip.close()

    def _part(self, name: str) -> bytes:
        info = self._zip.getinfo(self._names[name])
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"its {name} is compressed")
        return self._zip.read(info)

    def _words(self, name: str) -> dict[str, Any]:
        if self._zip.getinfo(self._names[name]).file_size > MOST_GRAPH:
            raise ValueError(f"its {name} is too large")
        words = json.loads(self._part(name))
        if not isinstance(words, dict):
            raise ValueError(f"its {name} holds no object")
        return words

    def graph(self) -> dict[str, Any]:
        """The JSON of the only program."""
        models = [name for name in self._names if name.startswith("models/")]
        compiled = any(name.startswith("data/aotinductor/") for name in self._names)
        if compiled or len(models) != 1:
            raise _Unfit(
                "it holds compiled code, which is not run here"
                if compiled
                else f"it holds {len(models)} programs, not one",
                AGAIN,
            )
        self._model = models[0].removeprefix("models/").removesuffix(".json")
        return self._words(models[0])

    def tensors(self, room: str) -> dict[str, torch.Tensor]:
        """Weights or constants by name."""
        index = f"data/{room}/{self._model}_{room}_config.json"
        if index not in self._names:  # as its first writers did
            raise _Unfit(f"its {room} are pickled: reading them could run code", AGAIN)
        whole: dict[str, torch.Tensor] = {}
        found = {}
        for name, one in self._words(index)["config"].items():
            if one["use_pickle"] or one["tensor_meta"] is None:
                raise _Unfit(f"its {room} are pickled: reading them could run code")
            meta, part = one["tensor_meta"], str(one["path_name"])
            dtype = _dtype(meta["dtype"])
            if part not in whole:
                data = bytearray(self._part(f"data/{room}/{part}"))
                whole[part] = (
                    torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
                )
            sizes, strides = (
                [int(side["as_int"]) for side in meta[key]] for key in ("sizes", "strides")
            )
            offset = int(meta["storage_offset"]["as_int"])
            found[name] = whole[part].as_strided(sizes, strides, offset)
        return found


def _dtype(number: int) -> torch.dtype:
    if number not in DTYPES:
        raise _Unfit(f"it has numbers of a kind that is not known here ({number})")
    return DTYPES[number]


def _only(spec: Mapping[str, Any], kind: str) -> Any:
    if kind not in spec:
        raise _Unfit("it changes what it holds when it runs, as a network in training does", AGAIN)
    return spec[kind]


def _input(argument: Mapping[str, Any], values: Mapping[str, Any]) -> ProgramInput:
    if "as_tensor" not in argument:
        raise _Unfit("it has an input that is no tensor")
    name = str(argument["as_tensor"]["name"])
    meta = values[name]
    shape = tuple(int(side.get("as_int") or 0) for side in meta["sizes"])
    return ProgramInput(name, shape, _dtype(meta["dtype"]))


def _names_of(module: Mapping[str, Any], count: int) -> tuple[str, ...]:
    """Of the outputs: as the program's own tree of them says, which JSON describes."""
    calls = [one for one in module.get("module_call_graph", []) if one.get("fqn") == ""]
    usual = tuple(f"output{at}" for at in range(count))
    if not calls or not calls[0].get("signature"):
        return usual
    tree = json.loads(calls[0]["signature"]["out_spec"])[1]
    names = list(_leaves(tree, ""))
    if len(names) != count or len(set(names)) != count:
        return usual
    return tuple(name or one for name, one in zip(names, usual, strict=True))


def _leaves(tree: Mapping[str, Any], above: str) -> Iterator[str]:
    """A name for each leaf, "" where there is none: keys of dicts, places in them after a dot."""
    kind, children = tree.get("type"), tree.get("children_spec") or []
    if kind is None:
        yield above
        return
    keys = json.loads(tree["context"]) if str(kind).endswith("dict") else None
    if isinstance(keys, dict):  # an OrderedDict's
        keys = list(keys)
    for at, child in enumerate(children):
        own = str(keys[at]) if isinstance(keys, list) else str(at) if above else ""
        yield from _leaves(child, f"{above}.{own}" if above else own)


def _step(node: Mapping[str, Any]) -> _Step:
    target = str(node["target"])
    call = _operator(target)
    inputs = [(str(one["name"]), _argument(one["arg"])) for one in node["inputs"]]
    if any(dict(inputs).get(name) is True for name in ("train", "training")):
        raise _Unfit("it is a network in training: its answers hang on more than the photo", AGAIN)
    schema = getattr(call, "_schema", None)
    order = [one.name for one in schema.arguments if not one.kwarg_only] if schema else []
    positional = []
    for at, (name, value) in enumerate(inputs):
        if schema is not None and (at >= len(order) or order[at] != name):
            break  # what comes after an argument that is left out goes by its name
        positional.append(value)
    named = dict(inputs[len(positional) :])
    gives = tuple(_argument(one) for one in node["outputs"])
    return _Step(call, tuple(positional), named, gives)


def _operator(target: str) -> Callable[..., Any]:
    if target in _PYTHON:
        return _PYTHON[target]
    parts = target.split(".")
    if len(parts) == 5 and parts[:2] == ["torch", "ops"] and parts[2] in LIBRARIES:
        library, name, overload = parts[2:]
        if library == "torchvision":
            _register_torchvision()
        found = getattr(getattr(getattr(torch.ops, library), name, None), overload, None)
        if isinstance(found, OpOverload) and not _opens_files(found):
            return found
    raise _Unfit(f"it needs {target[:80]}, which is not run here")


def _opens_files(found: OpOverload) -> bool:
    return any(one.name == "filename" for one in found._schema.arguments)


def _register_torchvision() -> None:
    try:
        import torchvision  # noqa: F401  # with it come its operators
    except ImportError as exc:
        raise _Unfit("it needs operators of torchvision", "pip install torchvision") from exc


def _argument(argument: Mapping[str, Any]) -> Any:
    """An argument or a place for a result: a value, or `_Value` where an earlier step gives it."""
    ((kind, one),) = argument.items()
    if kind == "as_none":
        return None
    if kind in ("as_tensor", "as_optional_tensor") or kind.startswith("as_sym_"):
        return [_named(item) for item in one] if isinstance(one, list) else _named(one)
    if kind in ("as_tensors", "as_optional_tensors"):
        return [_named(item) for item in one]
    if kind == "as_nested_tensors":
        return [[_named(item) for item in part] for part in one]
    if kind == "as_scalar_type":
        return _dtype(one)
    if kind == "as_memory_format":
        return MEMORY[one]
    if kind == "as_layout":
        return torch.strided
    if kind == "as_device":
        return torch.device("cpu")
    if kind == "as_float" and isinstance(one, str):  # "Infinity"
        return float(one)
    if kind in ("as_int", "as_ints", "as_float", "as_floats", "as_string", "as_strings", "as_bool"):
        return one
    if kind in ("as_bools", "as_int_lists", "as_float_lists"):
        return one
    raise _Unfit(f"it has an argument of the kind {kind.removeprefix('as_')}")


def _named(one: Mapping[str, Any]) -> Any:
    """Of a union of a name and a number."""
    if "name" in one:
        return _Value(str(one["name"]))
    ((kind, value),) = one.items()
    if kind == "as_tensor":
        return _Value(str(value["name"]))
    if kind == "as_name":
        return _Value(str(value))
    return None if kind == "as_none" else value


def _filled(argument: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(argument, _Value):
        return known[argument.name]
    if isinstance(argument, list):
        return [_filled(one, known) for one in argument]
    return argument


def _assigned(places: Sequence[Any], result: Any) -> Iterator[tuple[str, Any]]:
    """The names of a step's results, each with its own."""
    if not places:  # an assertion
        return
    for place, value in zip(places, result if len(places) > 1 else [result], strict=True):
        if isinstance(place, _Value):
            yield place.name, value
        elif isinstance(place, list):
            yield from _assigned(place, value if len(place) > 1 else value[0])


def _with_ends(steps: Sequence[_Step], given: Sequence[Any]) -> tuple[_Step, ...]:
    """The steps, each of which forgets what no later one needs."""
    needed = set(_values(given))
    kept = []
    for step in reversed(steps):
        used = set(_values([step.positional, list(step.named.values())]))
        made = set(_values(step.gives))
        last = (used | made) - needed
        kept.append(dataclasses.replace(step, forget=tuple(sorted(last))))
        needed |= used
    return tuple(reversed(kept))


def _values(argument: Any) -> Iterator[str]:
    if isinstance(argument, _Value):
        yield argument.name
    elif isinstance(argument, list | tuple):
        for one in argument:
            yield from _values(one)
