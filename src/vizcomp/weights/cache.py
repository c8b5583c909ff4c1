"""The cache of model files: fetched once, added by hand, checked, cleared."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat as modes
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from vizcomp.errors import InputError, ModelError, OutputError, SettingsError, WeightsMissingError
from vizcomp.files.foreign import read_object_file
from vizcomp.files.place import cache_folder
from vizcomp.files.write import beside, write_atomic
from vizcomp.weights import table
from vizcomp.weights.download import fetch, locked
from vizcomp.weights.tensors import read_tensors
from vizcomp.weights.transfer import Check, digest

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")  # of a model that is added

State = Literal["bundled", "cached", "downloadable", "missing", "changed"]


def model_folder() -> Path:
    """Where codecs are looked for by fingerprint, besides the bundled ones."""
    return cache_folder() / "models"


def added_model(name: str) -> Path | None:
    """The file of a model that `add` put into the cache, by its name; None if there is none."""
    if not name or name != Path(name).name:
        return None
    path = model_folder() / f"{name}.safetensors"
    return path if os.path.isfile(path) else None


def place(row: table.WeightFile) -> Path:
    """Where its file is, or would be."""
    return cache_folder() / row.file if row.sources else table.bundled_path(row.file)


def is_offline(offline: bool) -> bool:
    """Whether the network must not be touched: asked for, or `VIZCOMP_OFFLINE`."""
    return offline or os.environ.get("VIZCOMP_OFFLINE", "") not in ("", "0")


def obtain(name: str, *, offline: bool = False, check: Check | None = None) -> Path:
    """The file of a row, fetched into the cache where it is not there yet.

    Args:
        check: of the content of a file that is fetched now, as `add` has it; the next source is
            tried where it is another.

    Raises:
        WeightsMissingError: not there, and offline, or no source has it.
        ModelError: the file is not the one that was recorded when it came.
        SettingsError: unknown id.
    """
    row = table.find(name)
    path = place(row)
    if not row.sources:
        return path
    by_hand = f"get {row.file} elsewhere, and: vizcomp weights add {row.id} {row.file}"
    if not os.path.isfile(path):
        if is_offline(offline):
            raise WeightsMissingError(
                f"{row.id} is not in the cache, and the network is not to be used", by_hand
            )
        got = fetch(
            row.sources,
            path,
            size=row.size,
            sha256=row.sha256,
            md5=row.md5,
            check=check,
            by_hand=by_hand,
        )
        if got.source is not None:
            _record(row.id, path, got.sha256, str(got.source), got.source.words)
            return path
    if state(row) == "changed":
        raise ModelError(
            f"{path} is not the file that was recorded when it came",
            f"vizcomp weights clear {row.id}, then pull or add it again",
        )
    return path


def recorded(name: str) -> dict[str, Any]:
    """What is known of a cached file: sha256, bytes, mtime_ns, source, words; empty if nothing
    is."""
    return {
        key: value
        for key, value in _records().get(name, {}).items()
        if isinstance(value, str | int)
    }


def state(row: table.WeightFile, *, thorough: bool = False) -> State:
    """The state of a file.

    Args:
        thorough: compute its checksum, even where size and time are those that were recorded.
    """
    try:
        path = place(row)
        stat = path.stat()
    except (WeightsMissingError, OSError):
        return "downloadable" if row.sources else "missing"
    if not modes.S_ISREG(stat.st_mode):
        return "changed"
    if not row.sources:
        return "changed" if thorough and digest(path) != row.sha256 else "bundled"
    return "cached" if _is_as_recorded(row.id, path, thorough=thorough) else "changed"


def added_state(path: Path, *, thorough: bool = False) -> Literal["added", "changed"]:
    """The state of the file of an added model; `thorough` as in `state`."""
    return "added" if _is_as_recorded(_own(path.stem), path, thorough=thorough) else "changed"


def _own(name: str) -> str:
    """Under which name records have an added model: none that a published file has."""
    return f"{model_folder().name}/{name}"


def _is_as_recorded(key: str, path: Path, *, thorough: bool) -> bool:
    stat, known = path.stat(), recorded(key)
    if not known:  # put there by hand, without `add`
        _record(key, path, digest(path), "found in the cache folder", "")
        return True
    same = (stat.st_size, stat.st_mtime_ns) == (known.get("bytes"), known.get("mtime_ns"))
    if same and not thorough:
        return True
    if digest(path) != known.get("sha256"):
        return False
    words = str(known.get("words", ""))
    _record(key, path, str(known["sha256"]), str(known.get("source", "")), words)
    return True


def add(name: str, file: Path, *, check: Callable[[Path], None] | None = None) -> Path:
    """Copies a user's own file into the cache: that of a published row, or a model of vizcomp under
    a name of its own.

    Args:
        check: of the content of a published row's file; raises a `ModelError` where it is another.
            With it, a file of another size than the published one (saved anew, say, or a training
            of one's own) is taken where no checksum is known.

    Returns:
        Where it is now.

    Raises:
        InputError: it cannot be read, or is not what it should be.
        SettingsError: no such name, or a bundled one.
        OutputError: the cache cannot be written.
    """
    if not os.path.isfile(file):
        raise InputError(f"{file} is not there", "give the path of the file")
    if name in {row.id for row in table.BUNDLED}:
        raise SettingsError(
            f"{name} comes with the package", "choose another name for a model of yours"
        )
    row = next((r for r in table.PUBLISHED if r.id == name), None)
    other = ""
    if row is None:
        if file.suffix.lower() != ".safetensors" or not _NAME.fullmatch(name):
            published = ", ".join(r.id for r in table.PUBLISHED)
            raise SettingsError(
                f"{name!r} is not one of {published}",
                "only a model.safetensors of vizcomp train may be added by another name, of"
                " letters, digits and _.-",
            )
        _check_own(file)
        target = model_folder() / f"{name}.safetensors"
    else:
        target = place(row)
        size = file.stat().st_size
        other = (
            f"{file} has {size:,} bytes; {row.id} has {row.size:,}"
            if row.size and size != row.size
            else ""
        )
        if other and (check is None or row.md5 or row.sha256):
            raise InputError(other, "it may be cut off, or another file")
        if row.md5 and digest(file, "md5") != row.md5:
            raise InputError(f"{file} is not {row.id}: the checksum differs", "it may be damaged")
        if check is not None:
            try:
                check(file)
            except ModelError as exc:
                raise InputError(exc.message + (f" ({other})" if other else ""), exc.hint) from exc
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _copied(file, target)
        source = f"added by hand{', of another size' if other else ''}"
        _record(_own(name) if row is None else row.id, target, digest(target), source, "")
    except OSError as exc:
        raise OutputError(
            f"{target} cannot be written: {exc.strerror or exc}",
            "set VIZCOMP_CACHE to a folder of yours",
        ) from exc
    return target


def _copied(file: Path, target: Path) -> None:
    with beside(target) as part:
        shutil.copyfile(file, part)


def added() -> list[Path]:
    """Models that `add` put into the cache under names of their own; whatever else lies there is
    left out."""
    return sorted(
        p
        for p in model_folder().glob("*.safetensors")
        if _NAME.fullmatch(p.stem) and os.path.isfile(p)
    )


def clear(name: str) -> int:
    """Removes what the cache holds of a published row, unfinished downloads included, or an added
    model: bytes freed.

    Raises:
        SettingsError: no such name, or a bundled one.
    """
    added = added_model(name)
    if added is None and not table.find(name).sources:
        raise SettingsError(
            f"{name} comes with the package; it is not in the cache",
            "give the name of a published file",
        )
    paths = [added] if added else [place(table.find(name))]
    # the lock stays: without it another process that waits for it and one that comes later would
    # both download
    paths += [p for one in paths for p in one.parent.glob(f".{one.name}.*") if p.suffix != ".lock"]
    freed = 0
    for path in paths:
        if os.path.isfile(path):
            freed += path.stat().st_size
            path.unlink()
    _forget(name if added is None else _own(name))
    return freed


def _check_own(file: Path) -> None:
    hint = "give a model.safetensors of vizcomp train"
    try:
        about, _tensors = read_tensors(file, hint, what="weights")
    except ModelError as exc:
        raise InputError(exc.message, exc.hint) from exc
    if about.get("kind") not in ("codec", "classifier"):
        raise InputError(f"{file} holds no model of vizcomp", hint)


def _records() -> dict[str, dict[str, Any]]:
    """By id. Whatever else stands in the file counts as nothing: it is written anew with the next
    record."""
    try:
        return {
            k: v
            for k, v in read_object_file(cache_folder() / "records.json").items()
            if isinstance(v, dict)
        }
    except (OSError, ValueError):
        return {}


def _record(name: str, path: Path, sha256: str, source: str, fields: str) -> None:
    stat = path.stat()
    about = {
        "sha256": sha256,
        "bytes": stat.st_size,
        "mtime_ns": stat.st_mtime_ns,
        "source": source,
        "words": fields,
    }
    _change_records(lambda records: records | {name: about})


def note(name: str, **more: Any) -> None:
    """Adds to what is known of a cached file: the normalisation that was found for it, say."""
    if recorded(name):
        _change_records(lambda records: records | {name: records.get(name, {}) | more})


def _forget(name: str) -> None:
    if name in _records():
        _change_records(lambda records: {k: v for k, v in records.items() if k != name})


def _change_records(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """One process at a time: what another one has written meanwhile stays."""
    path = cache_folder() / "records.json"
    # a cache that cannot be written is of use all the same
    with contextlib.suppress(OSError, OutputError), locked(path):
        write_atomic(path, json.dumps(change(_records()), indent=1, sort_keys=True).encode())
