"""Write docs/cli.md from the commands themselves.

    python docs/make_cli.py            # write it
    python docs/make_cli.py --check    # say whether it is up to date, and leave with 1 if it is not

Read from the commands' signatures and not from their `--help`, whose layout depends on the terminal
and on Typer's version.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("cli.md")

HEAD = """\
# The command line

Made by `python docs/make_cli.py` from the commands' own declarations: change those, not this file.
Every command also has `-h` and `--help`; `vizcomp --version` prints the version.

What the options do, and why, stands in [djpeg.md](djpeg.md), [depth.md](depth.md) and
[codec.md](codec.md); how inputs are found and outputs named in [images.md](images.md).

## Exit codes

| code | means |
| --- | --- |
| 0 | everything is done |
| 1 | some inputs failed, the rest is done; results of unknown origin stayed; a training failed |
| 1 | `check`: the policy is broken; `doctor`: something does not work |
| 2 | the command was wrong: unknown option, no input, setting out of range, unwritable output |
| 3 | the weights of a network are missing |
| 130 | interrupted by Ctrl-C; what was finished is kept |

## Options from a file and from the environment

`vizcomp.toml`, or `[tool.vizcomp]` in `pyproject.toml`, is looked for in the working directory and
above it; the first one counts, and the command says which it was and what it took from it. The keys
are the options' names without the dashes; paths are as on the command line.

    jobs = 4                    # of every command that has it
    [djpeg]                     # of one command
    quality = 40
    metadata = "none"
    [profiles.ocr]              # with --profile ocr; or always, by profile = "ocr" at the top
    guide = "text"
    [profiles.ocr.djpeg]
    verify = ["text"]

`--config FILE` names another file, `--config none` none. A key that no option has is an error. A
file above the working directory that belongs to another user is refused.

Every option is also a variable: `VIZCOMP_QUALITY` for all commands, `VIZCOMP_DJPEG_QUALITY` for
one. Switches take 1 or 0; what may be given several times is separated by blanks. The command line
goes before the environment, that before the profile, that before the rest of the file.

`vizcomp --install-completion` makes the shell complete commands, options and their values: guides,
tables, models, systems.
"""


def commands() -> dict[str, Any]:
    """Name to the function of each command, in the order of `vizcomp --help`."""
    from vizcomp.cli import app

    found = {
        each.name or each.callback.__name__: each.callback
        for each in app.registered_commands
        if each.callback
    }
    for group in app.registered_groups:
        for each in group.typer_instance.registered_commands:
            found[f"{group.name} {each.name or each.callback.__name__}"] = each.callback
    return found


def parameters(function: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Each parameter's `ArgumentInfo` or `OptionInfo`, its type without None, its default
    (`Parameter.empty`: required)."""
    hints = typing.get_type_hints(function, include_extras=True)
    for name, parameter in inspect.signature(function).parameters.items():
        if not typing.get_args(hints[name]):
            continue  # the context, which no user gives
        kind, info = typing.get_args(hints[name])[:2]
        if isinstance(kind, types.UnionType):
            kind = next(each for each in typing.get_args(kind) if each is not type(None))
        yield info, kind, parameter.default


def flags(function: Any) -> list[str]:
    """All spellings of a command's options: `--quality`, `-q` ..."""
    return [flag for info, _, _ in parameters(function) for flag in _spellings(info)]


def _spellings(info: Any) -> list[str]:
    """`typer.Option("--quality", "-q")` takes the first spelling for a default, until Typer moves
    it inside `Annotated`."""
    found = [info.default, *(info.param_decls or ())]
    return [each for each in found if isinstance(each, str) and each.startswith("-")]


def _value(info: Any, kind: Any) -> str:
    if kind is bool:
        return ""
    if info.metavar:
        return str(info.metavar)
    return {float: "NUMBER", int: "N"}.get(kind, "TEXT")


def _range(info: Any) -> str:
    low, high = info.min, info.max
    if high is None and low in (0, 1):  # counts: the help text says what 0 means
        return ""
    if low is None and high is None:
        return ""
    return f" From {low:g} to {high:g}." if high is not None else f" At least {low:g}."


def _row(info: Any, kind: Any, default: Any) -> str:
    names = ", ".join(
        f"`{each}`" for each in sorted(_spellings(info), key=lambda n: n.startswith("--"))
    )
    value = _value(info, kind)
    if default is inspect.Parameter.empty:
        standard = "required"
    elif isinstance(info.show_default, str):
        standard = info.show_default
    elif kind is bool or default is None or default in ("", ()):
        standard = ""
    else:
        standard = f"`{default}`"
    text = (info.help or "") + _range(info) + (f" Also `{info.envvar}=1`." if info.envvar else "")
    cells = (names, f"`{value}`" if value else "", standard, text)
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _arguments(function: Any) -> list[str]:
    """The names of a command's arguments."""
    hints = typing.get_type_hints(function, include_extras=True)
    found = {
        name: typing.get_args(hints[name])[1:2] for name in inspect.signature(function).parameters
    }
    return [
        name for name, infos in found.items() if infos and type(infos[0]).__name__ == "ArgumentInfo"
    ]


def _argument(info: Any, name: str) -> str:
    return str(info.metavar or name.upper())


def page() -> str:
    """The whole of docs/cli.md."""
    import typer.models

    parts = [HEAD]
    for name, function in commands().items():
        found = list(parameters(function))
        arguments = [info for info, _, _ in found if isinstance(info, typer.models.ArgumentInfo)]
        options = [each for each in found if isinstance(each[0], typer.models.OptionInfo)]
        named = {
            id(info): _argument(info, which)
            for info, which in zip(arguments, _arguments(function), strict=True)
        }
        usage = " ".join(["vizcomp", name, *named.values(), "[OPTIONS]"])
        parts.append(f"## vizcomp {name}\n\n    {usage}\n\n{inspect.getdoc(function)}\n")
        if arguments:
            parts.append(
                "\n".join(f"- `{named[id(info)]}`: {info.help}" for info in arguments) + "\n"
            )
        if options:
            table = [
                "| option | value | default | |",
                "| --- | --- | --- | --- |",
                *(_row(*each) for each in options),
            ]
            parts.append("\n".join(table) + "\n")
    return "\n".join(parts)


def main(arguments: list[str]) -> int:
    text = page()
    if "--check" not in arguments:
        TARGET.write_text(text, "utf-8")
        return 0
    if TARGET.is_file() and TARGET.read_text("utf-8") == text:
        return 0
    print("docs/cli.md is not up to date: run python docs/make_cli.py", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
