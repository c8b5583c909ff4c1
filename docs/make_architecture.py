"""Writes the tree of docs/architecture.md from the docstrings: python docs/make_architecture.py"""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "vizcomp"
PAGE = ROOT / "docs" / "architecture.md"
START, END = "<!-- tree -->\n", "<!-- end of tree -->\n"


def caption(path: Path) -> str:
    """The first paragraph of a file's docstring, on one line."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    return " ".join(text.partition("\n\n")[0].split())


def tree(order: tuple[str, ...]) -> str:
    """The rooms in their order, and the files of each."""
    lines = []
    for room in order:
        folder = PACKAGE / room
        if not folder.is_dir():
            lines.append(f"- **{room}.py** {caption(PACKAGE / f'{room}.py')}")
            continue
        lines.append(f"- **{room}/** {caption(folder / '__init__.py')}")
        files = sorted(path for path in folder.glob("*.py") if path.stem != "__init__")
        lines += [f"  - `{path.stem}` {caption(path)}" for path in files]
    return "\n".join(wrapped for line in lines for wrapped in _wrapped(line)) + "\n"


def _wrapped(line: str) -> list[str]:
    """A list item at 100 columns; a name in backticks is not broken."""
    indent = " " * (line.index("-") + 2)
    return textwrap.wrap(
        line, 100, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )


def order() -> tuple[str, ...]:
    """`ORDER` of tests/whole/test_architecture.py."""
    module = ast.parse((ROOT / "tests" / "whole" / "test_architecture.py").read_text("utf-8"))
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ORDER":
            rooms: tuple[str, ...] = ast.literal_eval(node.value)
            return rooms
    raise SystemExit("tests/whole/test_architecture.py has no ORDER")


def page() -> str:
    """The page with its tree as the code has it."""
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    return before + START + tree(order()) + END + rest.partition(END)[2]


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
