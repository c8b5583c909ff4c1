"""What the shell completes: the values of options that have names."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

GUIDES = ("depth+text", "uniform", "depth", "text", "detail", "mask", "centre", "system:")
SYSTEMS = ("text", "inception", "watcher", "inception-v3", "torchvision:")
CODECS = ("djpeg", "photo", "cifar", "cifar-label")
MODEL_FILES = (".onnx", ".tflite", ".safetensors", ".h5", ".keras")

_BY_OPTION: dict[str, tuple[str, ...]] = {
    "guide": GUIDES,
    "verify": SYSTEMS,
    "watch_with": SYSTEMS,
    "system": SYSTEMS,
    "classifier": SYSTEMS,
    "depth_model": ("compact", "nyu"),
    "depth_kind": ("auto", "nearness", "disparity", "metres", "millimetres"),
    "codec": CODECS,
    "baseline": ("jpeg", "webp", "avif", "jxl", "none"),
    "min_saving": ("0%", "5%", "10%"),
    "readers": ("pillow", "opencv", "torchvision", "tensorflow", "dali", "browser"),
    "set": ("epochs=", "batch=", "seed="),
}
_MODELS = {
    "depth": ("compact", "nyu"),
    "encode": ("photo", "cifar", "cifar-label"),
    "decode": (),
    "info": (),
}
_WITH_FILES = frozenset(
    {"guide", "verify", "watch_with", "system", "classifier", "depth_model", "codec", "model"}
)


def complete(path: tuple[str, ...], parameter: Any) -> Callable[[Any, str], list[Any]] | None:
    """What completes an option's value, as Click's `shell_complete`; None where only the user knows
    values."""
    if path[0] == "weights" and parameter.name in ("name", "names"):
        return lambda context, begun: _items(_published(), begun)
    if parameter.param_type_name != "option":
        return None
    names = _BY_OPTION.get(parameter.name, ())
    if parameter.name == "model":
        names = _MODELS.get(path[0], ())
    metavar = str(parameter.metavar or "")
    if not names and "|" in metavar:
        names = tuple(word for word in metavar.split("|") if word == word.lower())
    files = parameter.name in _WITH_FILES
    if not names and not files:
        return None

    def values(context: Any, begun: str) -> list[Any]:
        known = [*names, *(_added() if files else ())]
        if parameter.name == "guide" and "+" in begun:
            first, _, last = begun.rpartition("+")
            return _items(
                [f"{first}+{name}" for name in known if name != "uniform"], f"{first}+{last}"
            )
        prefix = "system:" if parameter.name == "guide" and begun.startswith("system:") else ""
        if prefix:
            known = [prefix + name for name in (*SYSTEMS, *_added())]
        completions = (
            [prefix + name for name in _files(begun.removeprefix(prefix))] if files else []
        )
        return _items([*known, *completions], begun)

    return values


def _items(names: list[str], begun: str) -> list[Any]:
    try:
        from typer._click.shell_completion import CompletionItem
    except ImportError:  # Typer before it brought its own
        from click.shell_completion import CompletionItem  # type: ignore[assignment,no-redef]
    return [CompletionItem(name) for name in names if name.startswith(begun)]


def _files(begun: str) -> list[str]:
    """Model files and folders that begin so."""
    folder, start = os.path.split(begun)
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return []
    shown = [
        e
        for e in entries
        if e.name.startswith(start) and (start.startswith(".") or not e.name.startswith("."))
    ]
    return [
        os.path.join(folder, e.name) + (os.sep if e.is_dir() else "")
        for e in shown
        if e.is_dir() or os.path.splitext(e.name)[1].lower() in MODEL_FILES
    ]


def _added() -> list[str]:
    from vizcomp.weights import cache

    return [path.stem for path in cache.added()]


def _published() -> list[str]:
    from vizcomp.weights import table

    return [*(row.id for row in table.rows()), *_added()]
