"""Settings of trainings as data: recipes, run folders, `--set`, and checks of ranges."""

from __future__ import annotations

import dataclasses
import difflib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from vizcomp.errors import MissingExtraError, SettingsError, first_line
from vizcomp.files.foreign import MOST_BYTES, read_object_file, read_small, read_toml

KINDS = ("codec", "classifier", "depth", "guide")
SAVED = "settings.json"
# may change when a run is resumed
FREE = frozenset({"device", "data", "threads", "calibration"})
NETWORK = {"preset": str, "width": float}  # of --set, but fields of the network
PATHS = ("start", "pretrain")  # of --set; a shell does not expand ~ after NAME=

T = TypeVar("T")


def need_torch() -> None:
    """Loads torch, which all trainings need.

    Raises:
        MissingExtraError: it, or what else a training cannot do without, is not installed.
    """
    try:
        import torch  # noqa: F401
    except ImportError as exc:
        raise MissingExtraError("torch, which trainings need,", "train") from exc


def read_recipe(path: Path) -> dict[str, Any]:
    """The values of a recipe, a TOML file with the names of the settings' fields, and perhaps
    `kind`.

    Raises:
        SettingsError: the file cannot be read or is no TOML.
    """
    try:
        text = read_small(path, MOST_BYTES)
        if len(text) > MOST_BYTES:
            raise SettingsError(f"recipe {path} is too large", f"it may have {MOST_BYTES:,} bytes")
        return read_toml(text.decode("utf-8"))
    except OSError as exc:
        raise SettingsError(f"recipe {path}: {exc.strerror or exc}", "check the path") from exc
    except ValueError as exc:
        raise SettingsError(
            f"recipe {path} is no TOML: {first_line(exc)}", "a line looks like: epochs = 10"
        ) from exc


def read_saved(folder: Path) -> dict[str, Any]:
    """The values that a run was started with, its `kind` among them.

    Raises:
        SettingsError: there is no run in the folder.
    """
    try:
        values = read_object_file(folder / SAVED)
    except (OSError, ValueError) as exc:
        raise SettingsError(
            f"nothing to resume in {folder}", "omit `resume` to start a run"
        ) from exc
    return values


def read_values(
    kind: str | None, recipe: Path | None, resume: Path | None
) -> tuple[str, dict[str, Any]]:
    """The kind of a training, and its values before options.

    Args:
        kind: the kind that was asked for; None for that of the recipe or the run, or else "codec".
        recipe: a TOML file; it goes before the settings of a run.
        resume: the folder of a run to resume.

    Raises:
        SettingsError: an unknown kind, or a file that cannot be read.
    """
    values = (
        read_recipe(recipe)
        if recipe is not None
        else read_saved(resume)
        if resume is not None
        else {}
    )
    default = "depth" if "pretrain_epochs" in values else "codec"
    kind = kind or values.pop("kind", default)
    values.pop("kind", None)
    if kind not in KINDS:
        raise SettingsError(f"`kind` {kind} is not known", f"use one of {', '.join(KINDS)}")
    return str(kind), values


def changed(
    cls: type, values: Mapping[str, Any], options: Mapping[str, Any], pairs: Sequence[str]
) -> dict[str, Any]:
    """Values with those of the command line in place of their own.

    Args:
        cls: the settings' dataclass.
        options: name to value of the options with a name of their own.
        pairs: `NAME=VALUE` of each --set. VALUE is text, or a value of TOML where the field is no
            text.

    Raises:
        SettingsError: a name that the class does not have, no pair, or two values for one name.
    """
    defaults = _defaults(cls)
    for name in options:
        if name not in defaults:
            raise SettingsError(
                f"`{name}` does not go with this kind of training", "see vizcomp train --help"
            )
    given: dict[str, Any] = dict(options)
    network: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals:
            raise SettingsError(f"`set` {pair} is not NAME=VALUE", "for example: `set` epochs=10")
        table, default = given, defaults.get(name)
        if name in NETWORK and isinstance(defaults["network"], dict):
            table, default = network, NETWORK[name]()
        elif name not in defaults:
            raise _unknown(
                name, [*defaults, *NETWORK] if isinstance(defaults["network"], dict) else defaults
            )
        value = os.path.expanduser(text) if name in PATHS else _typed(text, default)
        if name in table and table[name] != value:
            origin = f"`{name}` {table[name]}" if name in options else f"`set` {name}={table[name]}"
            raise SettingsError(f"{origin} and `set` {pair} disagree", "give one of them")
        _check_type(name, value, default)
        table[name] = value
    if network:
        given["network"] = {
            **defaults["network"],
            **values.get("network", {}),
            **given.get("network", {}),
            **network,
        }
    return {**values, **given}


def split_list(text: str) -> list[str]:
    """The paths or names in one value, separated by the system's path separator; none in ""."""
    return text.split(os.pathsep) if text else []


def names_of(setting: str, values: Iterable[object]) -> tuple[str, ...]:
    """A setting that is a list of names.

    Raises:
        SettingsError: one of them is no text, or empty.
    """
    found = tuple(values)
    for one in found:
        if not isinstance(one, str) or not one:
            raise SettingsError(f"{setting}: {one!r} is no name", "give names, each in quotes")
    return tuple(map(str, found))


def find_data(kind: str, values: dict[str, Any], *, download: bool, offline: bool) -> None:
    """Checks the paths of the data; fetches CIFAR-10 where asked to.

    `cifar10` stands for the copy in the cache, unless there is a file or folder of that name.

    Args:
        download: fill the folder with CIFAR-10 where it is empty or missing.

    Raises:
        SettingsError: no data, or a path that does not exist.
    """
    from vizcomp.datasets.cifar import cifar10_archive, fill_with_cifar10

    if values.get("data") == "cifar10" and not Path("cifar10").exists():
        values["data"] = str(cifar10_archive(offline=offline))
    if not values.get("data"):
        raise SettingsError("no training data given", "add `data` PATH")
    data = str(values["data"])
    if download:
        if kind == "depth":
            raise SettingsError(
                "`download` does not go with `kind` depth", "CIFAR-10 has no depth maps"
            )
        if kind == "guide":
            raise SettingsError(
                "`download` does not go with `kind` guide",
                "give it photos like those to be compressed",
            )
        fill_with_cifar10(Path(data), offline=offline)
    for path in split_list(data):
        if not os.path.exists(path):
            raise SettingsError(
                f"{path} does not exist", "give `data` a folder or an archive that is there"
            )


def build(cls: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass of settings from JSON or TOML values; omitted fields get their defaults.

    Raises:
        SettingsError: an unknown field, or a value of another type or out of range.
    """
    defaults = _defaults(cls)
    for name, value in values.items():
        if name not in defaults:
            raise _unknown(name, defaults)
        _check_type(name, value, defaults[name])
    tables = {name: table for name, table in defaults.items() if hasattr(table, "from_dict")}
    return cls(
        **{
            **values,
            **{name: table.from_dict(dict(values.get(name, {}))) for name, table in tables.items()},
        }
    )


COMMON_RANGES: Mapping[str, tuple[float, float]] = {
    "average": (0, 0.999999),
    "validation": (0, 0.9),
    "validate_every": (1, 100_000),
    "seed": (0, 2**63 - 1),
}
"""Of the fields that every training has."""
STEP_RANGES: Mapping[str, tuple[float, float]] = {
    "epochs": (1, 1_000_000),
    "steps": (0, 1_000_000_000),
    "batch": (1, 65_536),
    "learning_rate": (1e-9, 10),
    "clip": (1e-6, 1e6),
    **COMMON_RANGES,
}
"""Of the fields that trainings by steps have."""


def check_ranges(settings: object, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Refuses fields that are no numbers or out of their range.

    Raises:
        SettingsError: names the first of them.
    """
    for name, (low, high) in ranges.items():
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not low <= value <= high:
            raise SettingsError(
                f"{name} {value!r} is not in {low:g}..{high:g}", "choose a number between them"
            )


def check_choices(settings: object, choices: Mapping[str, Iterable[str]]) -> None:
    """Refuses fields that are none of the words for them.

    Raises:
        SettingsError: names the first of them.
    """
    for name, names in choices.items():
        if getattr(settings, name) not in names:
            raise SettingsError(
                f"{name} {getattr(settings, name)!r} is not known", f"use one of {', '.join(names)}"
            )


def check_unchanged(folder: Path, saved: Mapping[str, Any], current: Mapping[str, Any]) -> None:
    """Refuses to resume a run with other settings; those in `FREE` may differ.

    Raises:
        SettingsError: names the settings that differ.
    """
    current = json.loads(json.dumps(current))  # as they were saved: lists for tuples
    names = [
        name for name in sorted({*current, *saved} - FREE) if current.get(name) != saved.get(name)
    ]
    if names:
        difference = (
            f"another {names[0]}" if len(names) == 1 else f"other settings: {', '.join(names)}"
        )
        raise SettingsError(
            f"the run in {folder} was started with {difference}", "resume with the same settings"
        )


def _defaults(cls: type) -> dict[str, Any]:
    """Name to default of each field."""
    return {
        field.name: (
            field.default
            if field.default_factory is dataclasses.MISSING
            else field.default_factory()
        )
        for field in dataclasses.fields(cls)
    }


def _unknown(name: str, names: Iterable[str]) -> SettingsError:
    near = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {near[0]}?" if near else f"there are: {', '.join(sorted(names))}"
    return SettingsError(f"unknown training setting: {name}", hint)


def _typed(text: str, default: Any) -> Any:
    """Text of the command line as a value of the default's type; the text itself where it is
    none."""
    try:
        match default:
            case str():
                return text
            case bool():
                return {"true": True, "false": False}.get(text.lower(), text)
            case int() | float():
                return type(default)(text)
        return read_toml(f"value = {text}")["value"]
    except (ValueError, KeyError):
        return text


_TYPE_NAMES = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    tuple: "a list",
}


def _check_type(name: str, value: Any, default: Any) -> None:
    match default:
        case bool():
            fits = isinstance(value, bool)
        case int() | float():
            numbers = int if isinstance(default, int) else int | float
            fits = isinstance(value, numbers) and not isinstance(value, bool)
        case tuple():
            fits = isinstance(value, list | tuple)
        case str():
            fits = isinstance(value, str)
        case _:
            fits = isinstance(value, Mapping) or dataclasses.is_dataclass(value)
    if not fits:
        raise SettingsError(
            f"{name} = {value!r} is not {_TYPE_NAMES.get(type(default), 'a table')}",
            f"without it {name} is {default!r}" if default not in ("", None) else f"omit {name}",
        )
