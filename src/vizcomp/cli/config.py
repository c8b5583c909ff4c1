"""Options from a file: `vizcomp.toml`, or `[tool.vizcomp]` in `pyproject.toml`, in the working
directory or above it.

    jobs = 4                    # an option of any command that has it
    [djpeg]                     # of one command
    quality = 40
    [profiles.ocr]              # with --profile ocr, before those above
    guide = "text"
    [profiles.ocr.djpeg]
    verify = ["text"]

What is given on the command line goes before the environment, that before the profile, that before
the rest of the file.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import typer

from vizcomp.cli.usage import FILE, commands, keys, unknown_variables
from vizcomp.errors import InputError, SettingsError, first_line
from vizcomp.files.foreign import read_small, read_toml
from vizcomp.files.place import disk_cause, printable

NAME = "vizcomp.toml"
MAX_BYTES = 1 << 20
_NOT_IN_A_FILE = frozenset({"config", "help", "version", "install-completion", "show-completion"})


class _InUse:
    """The file of the command that runs."""

    def __init__(self) -> None:
        self.path: Path | None = None
        self.profile = ""
        self.context: typer.Context | None = None


_in_use = _InUse()


def file_in_use() -> str:
    """The file of the command that runs, for messages; "" without one."""
    return "" if _in_use.path is None else printable(_in_use.path)


def what_was_used() -> list[str]:
    """Lines that say which file was used and for which options, and which variables mean
    nothing."""
    context = _in_use.context
    if context is None:
        return []
    lines = []
    taken = [
        p
        for p in context.command.params
        if getattr(context.get_parameter_source(p.name or ""), "name", "") == "DEFAULT_MAP"
    ]
    if _in_use.path is not None and (taken or _in_use.profile):
        profile = f", profile {_in_use.profile}" if _in_use.profile else ""
        names = ", ".join(key for p in taken for key in keys(p)[:1]) or "no option of this command"
        lines.append(f"options from {file_in_use()}{profile}: {names}")
    for name, meant in unknown_variables(context.find_root().command):
        lines.append(
            f"{name} is no option and is not used" + (f"; did you mean {meant}?" if meant else "")
        )
    return lines


def read_options(context: typer.Context, parameter: typer.CallbackParam, value: str) -> str:
    """The callback of `--config` and `--profile`, which come before all other options: the file
    gives their defaults."""
    if context.resilient_parsing:  # the shell completes
        return value
    given = {**context.params, parameter.name or "": value}
    config, profile = given.get("config") or "", given.get("profile") or ""
    _in_use.path, _in_use.profile, _in_use.context = None, "", context
    path = _found(config)
    if path is None:
        if profile:
            raise SettingsError(
                f"--profile {profile}: there is no {NAME} here or above",
                f"write [profiles.{profile}] into one",
            )
        return value
    table = _read(path)
    if table is None:
        return value
    _in_use.path = path
    context.meta[FILE] = printable(path)
    reader = _Reader(path, context)
    reader.check(table)
    profile = (
        profile or str(table.get("profile") or "")
        if not isinstance(table.get("profile"), Mapping)
        else profile
    )
    context.default_map = reader.values(table, profile)
    _in_use.profile = profile
    return value


def _found(config: str) -> Path | None:
    if config == "none":
        return None
    if config:
        return Path(config)
    here = Path.cwd()
    for folder in (here, *here.parents):
        for name in (NAME, "pyproject.toml"):
            path = folder / name
            if os.path.isfile(path) and (name == NAME or _read(path) is not None):
                _check_owner(path, here)
                return path
    return None


def _check_owner(path: Path, here: Path) -> None:
    """A file above the working directory that somebody else put there decides nothing."""
    if os.name != "posix" or path.parent == here:
        return
    owner = path.stat().st_uid
    if owner not in (0, os.geteuid(), here.stat().st_uid):
        raise SettingsError(
            f"{printable(path)} belongs to another user",
            f"name it by --config {printable(path)}, or say --config none",
        )


def _read(path: Path) -> dict[str, Any] | None:
    """The table of a file; None of a pyproject.toml that has none.

    Raises:
        SettingsError: no TOML. InputError: it cannot be read.
    """
    shown = printable(path)
    try:
        data = read_small(path, MAX_BYTES)
        if len(data) > MAX_BYTES:
            raise SettingsError(
                f"{shown} is too large for a file of options", f"it may have {MAX_BYTES} bytes"
            )
        text = data.decode("utf-8")
    except OSError as exc:
        raise InputError(
            f"{shown} cannot be read: {disk_cause(exc)}", "check --config, or say --config none"
        ) from exc
    except UnicodeDecodeError as exc:
        raise SettingsError(f"{shown} is not UTF-8", "save it as UTF-8") from exc
    if path.name == "pyproject.toml" and "vizcomp" not in text:
        return None
    try:
        # what other tools have in a pyproject.toml is theirs
        table = read_toml(text.replace("\r\n", "\n"), finite=False)
    except ValueError as exc:
        raise SettingsError(
            f"{shown} is no TOML: {first_line(exc)[:200]}", "correct it, or say --config none"
        ) from exc
    if path.name != "pyproject.toml":
        return table
    tool = table.get("tool")
    own_table = tool.get("vizcomp") if isinstance(tool, dict) else None
    return own_table if isinstance(own_table, dict) else None


class _Reader:
    """The options of a file, for the command that runs."""

    def __init__(self, path: Path, context: typer.Context) -> None:
        self._shown = printable(path)
        root = context.find_root().command
        self._commands = {
            "-".join(names): {
                key: p for p in one.params for key in keys(p) if key not in _NOT_IN_A_FILE
            }
            for names, one in commands(root)
        }
        self._every = {key: p for options in self._commands.values() for key, p in options.items()}
        names: list[str] = []
        above: Any = context
        while above.parent is not None:
            names.insert(0, above.info_name or "")
            above = above.parent
        self._name = "-".join(names)

    def check(self, table: Mapping[str, Any]) -> None:
        """Every key of the file is known, those of other commands and profiles too."""
        self._check_options(
            table, "", self._every, {**self._commands, "profile": {}, "profiles": {}}
        )
        for name, options in self._profiles(table).items():
            if not isinstance(options, Mapping):
                raise SettingsError(
                    f"{self._shown}: the profile {name} is no table", f"write [profiles.{name}]"
                )
            self._check_options(options, f"profiles.{name}.", self._every, self._commands)
            self._check_tables(options, f"profiles.{name}.")
        self._check_tables(table, "")

    def _check_tables(self, table: Mapping[str, Any], above: str) -> None:
        for name, options in self._commands.items():
            inside = table.get(name)
            if isinstance(inside, Mapping):
                self._check_options(inside, f"{above}{name}.", options, {})

    def _check_options(
        self,
        table: Mapping[str, Any],
        above: str,
        options: Mapping[str, Any],
        tables: Mapping[str, Any],
    ) -> None:
        for key, value in table.items():
            name = key.replace("_", "-")
            if (isinstance(value, Mapping) and key in tables) or (
                name in options and not isinstance(value, Mapping)
            ):
                continue
            near = get_close_matches(name, [*options, *tables], 1)
            hint = (
                f"did you mean {near[0]}?" if near else "vizcomp COMMAND --help lists the options"
            )
            raise SettingsError(f"{self._shown}: there is no option {above}{key}"[:300], hint)

    def _profiles(self, table: Mapping[str, Any]) -> dict[str, Any]:
        return {
            name: options
            for kind in ("profiles", "profile")
            if isinstance(profiles := table.get(kind), Mapping)
            for name, options in profiles.items()
        }

    def values(self, table: Mapping[str, Any], profile: str) -> dict[str, Any]:
        """Values for this command by the names of its parameters."""
        layers = [table]
        if profile:
            profiles = self._profiles(table)
            if profile not in profiles:
                near = get_close_matches(profile, profiles, 1)
                hint = (
                    f"did you mean {near[0]}?"
                    if near
                    else f"it has {', '.join(sorted(profiles)) or 'no profiles'}"
                )
                raise SettingsError(f"{self._shown} has no profile {profile}", hint)
            layers.append(profiles[profile])
        values: dict[str, Any] = {}
        options = self._commands.get(self._name, {})
        for layer in layers:
            for one in (layer, layer.get(self._name, {})):
                for key, value in one.items():
                    parameter = options.get(key.replace("_", "-"))
                    if parameter is not None and not isinstance(value, Mapping):
                        values[parameter.name] = self._value(key, value, parameter)
        return values

    def _value(self, key: str, value: Any, parameter: Any) -> Any:
        """As Typer takes it from a command line."""
        if getattr(parameter, "is_flag", False):
            if not isinstance(value, bool):
                raise SettingsError(
                    f"{self._shown}: {key} is neither true nor false", f"write {key} = true"
                )
            return value
        many = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in many):
            raise SettingsError(
                f"{self._shown}: {key} is neither text nor a number", f'write {key} = "..."'
            )
        if getattr(parameter, "multiple", False):
            return [str(one) for one in many]
        if isinstance(value, list):
            raise SettingsError(f"{self._shown}: {key} takes one value", f'write {key} = "..."')
        return str(value)
