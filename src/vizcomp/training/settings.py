"""Settings of trainings as data: recipes, run folders, checks that each kind of training needs."""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from vizcomp.errors import SettingsError

KINDS = ("codec", "classifier", "depth")
SAVED = "settings.json"
FREE = frozenset({"device", "data", "threads"})  # a run may go on with others of these

T = TypeVar("T")


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a recipe, a TOML file with the names of the settings' fields, and `kind` perhaps.

    Raises:
        SettingsError: the file cannot be read or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as exc:
        raise SettingsError(f"recipe {path}: {exc.strerror or exc}", "check the path") from exc
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise SettingsError(f"recipe {path} is no TOML: {exc}", "a line looks like: epochs = 10") from exc


def read_saved(folder: Path) -> dict[str, Any]:
    """The values that a run was started with, its `kind` among them.

    Raises:
        SettingsError: there is no run in the folder.
    """
    try:
        values = json.loads((folder / SAVED).read_text("utf-8"))
    except (OSError, ValueError) as exc:
        raise SettingsError(f"nothing to resume in {folder}", "leave --resume away to start a run") from exc
    if not isinstance(values, dict):
        raise SettingsError(f"{folder / SAVED} holds no settings", "start the run again in another folder")
    return values


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of settings from JSON or TOML values; fields that are left out get their defaults.

    Raises:
        SettingsError: an unknown field, or a value of another type or out of range.
    """
    defaults = {f.name: _default(f) for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    if unknown := sorted(set(values) - set(defaults)):
        raise SettingsError(f"unknown training setting: {', '.join(unknown)}", f"there are: {', '.join(sorted(defaults))}")
    for name, value in values.items():
        if not _fits(value, defaults[name]):
            raise SettingsError(f"{name} = {value!r} is not {_TYPE_NAMES.get(type(defaults[name]), 'a table')}")
    tables = {
        name: value.from_dict(dict(values.get(name, {}))) for name, value in defaults.items() if hasattr(value, "from_dict")
    }
    return cls(**{**values, **tables})


def check_ranges(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuses fields that are no numbers or out of their range.

    Raises:
        SettingsError: names the first of them.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise SettingsError(f"{name} {value!r} is not in {low:g}..{high:g}")


def check_choices(settings: object, choices: Mapping[str, Iterable[str]]) -> None:
    """Refuses fields that are none of the known words.

    Raises:
        SettingsError: names the first of them.
    """
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            raise SettingsError(f"{name} {getattr(settings, name)!r} is not known", f"use one of {', '.join(known)}")


def check_unchanged(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuses to go on with a run under other settings; those in `FREE` may differ.

    Raises:
        SettingsError: names what differs.
    """
    now = json.loads(json.dumps(now))  # as they were saved: lists for tuples
    different = [name for name in sorted({*now, *before} - FREE) if now.get(name) != before.get(name)]
    if not different:
        return
    words = f"another {different[0]}" if len(different) == 1 else f"other settings: {', '.join(different)}"
    raise SettingsError(f"the run in {folder} was started with {words}", "resume with the same settings")


def _default(field: dataclasses.Field[Any]) -> Any:
    return field.default if field.default_factory is dataclasses.MISSING else field.default_factory()


_TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "text", tuple: "a list", dict: "a table"}


def _fits(value: Any, default: Any) -> bool:
    match default:
        case bool():
            return isinstance(value, bool)
        case int():
            return isinstance(value, int) and not isinstance(value, bool)
        case float():
            return isinstance(value, int | float) and not isinstance(value, bool)
        case tuple():
            return isinstance(value, list | tuple)
        case str():
            return isinstance(value, str)
    return isinstance(value, Mapping)
