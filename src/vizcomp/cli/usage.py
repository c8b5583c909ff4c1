"""How the command line is read: variables of the environment for every option, and what is wrong
with it in our words."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import typer

from vizcomp.cli.completion import complete
from vizcomp.errors import SettingsError, VizcompError, was_interrupted

FILE = "vizcomp.file"
"""The key of `Context.meta` for the file that options come from."""

OTHER_VARIABLES = frozenset(
    {"VIZCOMP_CACHE", "VIZCOMP_WRITE_GOLDEN", "VIZCOMP_SHARED", "VIZCOMP_SVT", "VIZCOMP_WORKER"}
)
"""What else begins with VIZCOMP_ and is no option's."""


def read(app: typer.Typer) -> int:
    """Read the command line and do what it says: the exit code.

    Raises:
        SettingsError: no such command or option, a value that is none, something missing.
    """
    command: Any = typer.main.get_command(app)
    for path, one in commands(command):
        # in the list of commands Typer would keep the docstring's line ends
        one.short_help = " ".join((one.help or "").partition("\n\n")[0].split())
        for parameter in one.params:
            _prepare(path, parameter)
    answered: list[int] = []
    command.invoke = _telling(command.invoke, answered)
    try:
        code = command.main(prog_name="vizcomp", standalone_mode=False)
    except Exception as exc:
        if not hasattr(exc, "format_message"):  # of Typer or Click, whichever it brings
            raise
        if type(exc).__name__ == "NoArgsIsHelpError":
            print(exc.format_message())
            return 0
        raise _in_our_words(exc) from exc
    if code == 130 and not answered:  # Ctrl-C while the words were read
        raise KeyboardInterrupt
    return code if isinstance(code, int) else 0


def _telling(invoke: Callable[[Any], Any], answered: list[int]) -> Callable[[Any], Any]:
    """Run a command so that Ctrl-C leaves it as our error: Typer makes of it a mere exit code, of
    which nobody knows whether it was said why. An exit code of the command's own is kept in
    `answered`."""

    def invoked(context: Any) -> Any:
        try:
            return invoke(context)
        except typer.Exit as exc:
            answered.append(exc.exit_code)
            raise
        except (Exception, KeyboardInterrupt) as exc:
            if was_interrupted(exc):
                raise VizcompError("interrupted") from exc
            raise

    return invoked


def commands(group: Any, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each command below a group, with the names that lead to it."""
    for name, one in group.commands.items():
        if hasattr(one, "commands"):
            yield from commands(one, (*above, name))
        else:
            yield (*above, name), one


def keys(parameter: Any) -> list[str]:
    """The names of an option in a file, the first of them preferred: `depth-model`."""
    spelled = [each for each in parameter.opts if each.startswith("--")]
    return (
        []
        if parameter.param_type_name != "option"
        else [each.removeprefix("--") for each in spelled]
    )


def variables(path: tuple[str, ...], parameter: Any) -> list[str]:
    """The variables of an option: VIZCOMP_DJPEG_QUALITY before VIZCOMP_QUALITY."""
    names = [
        key.replace("-", "_").upper() for key in keys(parameter) if key not in ("help", "version")
    ]
    here = "_".join(path).upper()
    return [f"VIZCOMP_{here}_{name}" for name in names] + [f"VIZCOMP_{name}" for name in names]


def unknown_variables(group: Any) -> list[tuple[str, str]]:
    """Variables that look like an option's and are none, each with the name that may be meant, or
    ""."""
    known = {
        name for path, one in commands(group) for p in one.params for name in variables(path, p)
    } | OTHER_VARIABLES
    strange = sorted(
        name for name in os.environ if name.startswith("VIZCOMP_") and name not in known
    )
    return [(name, next(iter(get_close_matches(name, known, 1)), "")) for name in strange]


def _prepare(path: tuple[str, ...], parameter: Any) -> None:
    """Its variables and its completion."""
    if parameter.param_type_name == "option":
        parameter.envvar = variables(path, parameter) or None
        parameter.show_envvar = False  # one rule for all, which `vizcomp --help` states
    values = complete(path, parameter)
    if values is not None:
        parameter.shell_complete = values


def _in_our_words(exc: Any) -> SettingsError:
    context = getattr(exc, "ctx", None)
    place = context.command_path if context is not None else "vizcomp"
    hint = f"{place} --help"
    parameter = getattr(exc, "param", None)
    if type(exc).__name__ == "NoSuchOption":
        near = [*(exc.possibilities or ()), *_near(exc.option_name, context)]
        return SettingsError(
            f"there is no option {exc.option_name}",
            f"did you mean {near[0]}?" if near else f"{hint} lists the options",
        )
    if parameter is None:
        text = exc.format_message().strip().rstrip(".")
        return SettingsError(text[:1].lower() + text[1:] if text[1:2].islower() else text, hint)
    shown = _shown(parameter)
    where = _where(context, parameter)
    if type(exc).__name__ == "MissingParameter":
        return SettingsError(f"{shown} is missing", f"{_shortest(context, place)}, or {hint}")
    return _bad_value(exc, parameter, shown + where, hint)


def _bad_value(exc: Any, parameter: Any, shown: str, hint: str) -> SettingsError:
    errors = exc.__cause__.errors() if hasattr(exc.__cause__, "errors") else []
    kind, value = (errors[0].get("type", ""), errors[0].get("input")) if errors else ("", None)
    info = getattr(getattr(parameter, "type_descriptor", None), "parameter_info", None)
    low, high = getattr(info, "min", None), getattr(info, "max", None)
    span = (
        ""
        if low is None
        else f"it is at least {low:g}"
        if high is None
        else f"it goes from {low:g} to {high:g}"
    )
    if span and kind.startswith(("less_than", "greater_than", "finite")):
        return SettingsError(f"{shown} {value} is out of range", span)
    if kind.startswith("int"):
        return SettingsError(f"{shown} {value!r} is no whole number", span or hint)
    if kind.startswith("float"):
        return SettingsError(f"{shown} {value!r} is no number", span or hint)
    if kind.startswith("bool"):
        return SettingsError(f"{shown} {value!r} is neither true nor false", "write 1 or 0")
    text = " ".join(str(exc.message).split()).rstrip(".")
    return SettingsError(f"{shown}: {text[:1].lower()}{text[1:]}", hint)


def _shown(parameter: Any) -> str:
    if parameter.param_type_name == "option":
        spelled = sorted(parameter.opts, key=len, reverse=True)
        return str(spelled[0])
    return str(parameter.metavar or parameter.name.upper())


def _shortest(context: Any, place: str) -> str:
    """A command with what it cannot do without, as `vizcomp djpeg INPUT... --output DIR`."""
    parameters = context.command.params if context is not None else ()
    arguments = [_shown(each) for each in parameters if each.param_type_name == "argument"]
    options = [
        f"{_shown(each)} {each.metavar}"
        for each in parameters
        if each.required and each.param_type_name == "option"
    ]
    return " ".join([place, *arguments, *options])


def source_of(context: Any, name: str) -> str:
    """Where a parameter's value is from: COMMANDLINE, ENVIRONMENT, DEFAULT_MAP (the file) or
    DEFAULT; "" where none is."""
    source = context.get_parameter_source(name) if context is not None else None
    return str(getattr(source, "name", ""))


def _where(context: Any, parameter: Any) -> str:
    """Where a value comes from, if not from the command line."""
    source = source_of(context, parameter.name)
    if source == "ENVIRONMENT":
        variable = next((v for v in parameter.envvar or () if os.environ.get(v)), "the environment")
        return f" (of {variable})"
    if source == "DEFAULT_MAP":
        return f" (of {context.meta.get(FILE, 'a file')})"
    return ""


def _near(option: str, context: Any) -> list[str]:
    if context is None:
        return []
    known = [name for p in context.command.params for name in p.opts if name.startswith("--")]
    return get_close_matches(option, known, 1)
