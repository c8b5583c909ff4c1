"""The files of a model: what lies beside it, its state, its fingerprint and its options."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from pathlib import Path

from vizcomp.errors import ModelError, SettingsError
from vizcomp.vision.options import ModelOptions, model_path
from vizcomp.vision.system import (
    HINT,
    file_fingerprint,
)

# A tensor's `external_data` entry in an ONNX file, up to the length of the file's name.
_EXTERNAL = re.compile(rb"\x0a\x08location\x12([\x01-\x7f])")


def weights_beside(path: Path) -> list[Path]:
    """The files in which an ONNX file keeps weights: those that it names, and those of the usual
    names."""
    if path.suffix.lower() != ".onnx":
        return []
    places = {path.with_name(path.name + ending) for ending in (".data", "_data")}
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        for match in _EXTERNAL.finditer(data):
            name = data[match.end() : match.end() + data[match.end() - 1]]
            places.add(path.parent / name.decode("utf-8", "replace"))
    return sorted(place for place in places if os.path.isfile(place))


def state_of(name: str) -> tuple[tuple[int, int], ...]:
    """Sizes and times of the files that a system's name stands for: another state is another model,
    or is read otherwise. () for what is no file."""
    path = model_path(name)
    if path is None:
        return ()
    beside = [path.with_name(path.name + ending) for ending in (".data", "_data")]
    states = []
    for place in (path, path.with_suffix(".json"), *beside):
        try:
            found = place.stat()
        except OSError:
            states.append((-1, -1))
        else:
            states.append((found.st_size, found.st_mtime_ns))
    return tuple(states)


def fingerprint_of(path: Path, options: ModelOptions) -> str:
    """Of the file; where weights lie beside it or options say something, of these too, after a
    hyphen."""
    more = [file_fingerprint(place) for place in weights_beside(path)]
    if options != ModelOptions():
        more.append(repr(options))
    fingerprint = file_fingerprint(path)
    return (
        f"{fingerprint}-{hashlib.sha256(' '.join(more).encode()).hexdigest()[:6]}"
        if more
        else fingerprint
    )


def model_file(spec_path: Path) -> None:
    """Raises ModelError where a file is not there."""
    if not os.path.isfile(spec_path):
        raise ModelError(f"{spec_path} is not there", HINT)


def options_of(path: Path, text: str) -> ModelOptions:
    """Those in the name, and those of NAME.json where the name is silent.

    Raises:
        SettingsError, ModelError: as `options`.
    """
    from vizcomp.vision.options import parse_options, read_options

    spoken = parse_options(text)
    try:
        return spoken.merged(read_options(path.with_suffix(".json")))
    except SettingsError as exc:
        raise ModelError(f"{path.with_suffix('.json')}: {exc.message}", exc.hint) from exc
