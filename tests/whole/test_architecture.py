"""The house of docs/architecture.md: rooms in one order, and the light commands load nothing
heavy."""

from __future__ import annotations

import ast
import graphlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vizcomp

PACKAGE = Path(vizcomp.__file__).parent

# A room imports only from rooms that stand before it.
ORDER = (
    "errors",
    "metrics",
    "jpeg",
    "vzc",
    "files",
    "photos",
    "weights",
    "datasets",
    "shards",
    "depth",
    "graphs",
    "nets",
    "vision",
    "djpeg",
    "neural",
    "batch",
    "evaluation",
    "fitting",
    "report",
    "training",
    "api",
    "transforms",
    "cli",
)
GROUND = ("_version", "_native")  # below all rooms
ROOF = ("__init__", "__main__")  # above all rooms
TORCH = {"nets", "training", "neural/search"}
NO_ARRAYS = {"_version", "errors", "batch/engines", "report", "cli", "__init__", "__main__"}
LONGEST_FILE, LONGEST_FUNCTION = 500, 80
SOURCES = sorted(PACKAGE.rglob("*.py"))
NAMES = {path: path.relative_to(PACKAGE).with_suffix("").as_posix() for path in SOURCES}
FILES = set(NAMES.values())
TREES = {path: ast.parse(path.read_text("utf-8")) for path in SOURCES}
each_file = pytest.mark.parametrize("path", SOURCES, ids=lambda path: NAMES[path])


def room(file: str) -> str:
    return file.split("/")[0]


def imports(path: Path) -> list[tuple[str, str]]:
    """(file, name) of all that a file imports from vizcomp, at any depth; the name is "" for a
    whole file."""
    pairs = []
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.Import):
            pairs += [
                (alias.name.replace(".", "/"), "")
                for alias in node.names
                if alias.name.startswith("vizcomp")
            ]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            if (node.module or "").split(".")[0] == "vizcomp":
                base = (node.module or "").replace(".", "/")
                pairs += [(base, alias.name) for alias in node.names]
    found = []
    for base, name in pairs:
        inside = base.removeprefix("vizcomp").strip("/")
        whole = f"{inside}/{name}".strip("/") if name else inside
        if whole in FILES or whole in GROUND:
            found.append((whole, ""))
        elif inside in FILES:
            found.append((inside, name))
        elif f"{inside}/__init__" in FILES and inside:
            assert inside == "cli", f"{NAMES[path]} imports {whole}, which is nowhere"
            found.append(("cli/__init__", name))
        else:
            assert inside == "", f"{NAMES[path]} imports {whole}, which is nowhere"
            found.append(("__init__", name))
    return found


def test_every_file_is_in_a_room_and_every_room_is_there() -> None:
    rooms = {room(name) for name in FILES}
    assert rooms == {*ORDER, "_version", *ROOF}


@each_file
def test_a_room_imports_from_rooms_before_it(path: Path) -> None:
    order = (*GROUND, *ORDER, *ROOF)
    here = room(NAMES[path])
    for file, _ in imports(path):
        there = room(file)
        assert there == here or order.index(there) < order.index(here), (
            f"{NAMES[path]} must not import {file}"
        )


def test_no_file_imports_itself_by_way_of_others() -> None:
    graph = {NAMES[path]: {file for file, _ in imports(path)} for path in SOURCES}
    graphlib.TopologicalSorter(graph).prepare()  # CycleError names the circle


@each_file
def test_no_private_name_crosses_files(path: Path) -> None:
    """Neither imported nor read as an attribute of a module."""
    modules = set()
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vizcomp"):
            for alias in node.names:
                dunder = alias.name in GROUND or alias.name == "__version__"
                assert dunder or not alias.name.startswith("_"), (
                    f"{NAMES[path]} imports {alias.name}"
                )
                if (
                    f"{node.module}.{alias.name}".removeprefix("vizcomp.").replace(".", "/")
                    in FILES
                ):
                    modules.add(alias.asname or alias.name)
    for node in ast.walk(TREES[path]):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id in modules
        ):
            assert not node.attr.startswith("_"), f"{NAMES[path]} reads {node.value.id}.{node.attr}"


@each_file
def test_heavy_packages_are_imported_where_they_are_needed(path: Path) -> None:
    name = NAMES[path]
    light = name in NO_ARRAYS or room(name) in NO_ARRAYS
    allowed = set() if light else {"numpy", "PIL"}
    if room(name) in TORCH or name in TORCH:
        allowed |= {"torch"}
    if room(name) == "training":  # what writes model files; nothing light imports it
        allowed |= {"onnx", "safetensors"}
    if room(name) == "cli":
        allowed |= {"typer"}
    for node in TREES[path].body:
        if isinstance(node, ast.Import):
            packages = {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            packages = {(node.module or "").split(".")[0]}
        else:
            continue
        heavy = packages - {"vizcomp"} - set(sys.stdlib_module_names)
        assert heavy <= allowed, f"{name} imports {heavy - allowed} at its top"


def messages(tree: ast.Module) -> Iterator[str]:
    """All texts of a file that are no docstrings."""
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docs:
            yield node.value


@each_file
def test_below_the_command_line_nothing_speaks_of_options(path: Path) -> None:
    """A setting in a message is `min_saving`; `cli.words` makes --min-saving of it. Whole commands
    are the shell's anywhere."""
    # which starts Ray's own command
    if room(NAMES[path]) == "cli" or NAMES[path] == "batch/ray_engine":
        return
    for text in messages(TREES[path]):
        said = re.sub(r"vizcomp [a-z]+ --[a-z-]+", "", text)
        assert not re.search(r"(?<![\w-])--(?:[a-z]|$)", said), (
            f"{NAMES[path]}: {text!r}: write `min_saving`, not --min-saving"
        )
        assert not re.search(r"(?:with|of|as|use|give|add) -[a-z]\b", said), (
            f"{NAMES[path]}: {text!r}: name the setting"
        )


@each_file
def test_files_and_functions_are_short(path: Path) -> None:
    lines = len(path.read_text("utf-8").splitlines())
    assert lines <= LONGEST_FILE, f"{NAMES[path]} has {lines} lines"
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            # a command's options are its signature
            start = node.body[0].lineno if room(NAMES[path]) == "cli" else node.lineno
            length = (node.end_lineno or start) - start + 1
            assert length <= LONGEST_FUNCTION, f"{NAMES[path]}: {node.name} has {length} lines"


@each_file
def test_docstrings_name_the_arguments_that_are_there(path: Path) -> None:
    for node in ast.walk(TREES[path]):
        if not isinstance(node, ast.FunctionDef | ast.ClassDef):
            continue
        inits = [each for each in node.body if getattr(each, "name", "") == "__init__"]
        function = node if isinstance(node, ast.FunctionDef) else next(iter(inits), None)
        section = re.search(r"^Args:\n((?: +.*\n|\n)*)", f"{ast.get_docstring(node)}\n", re.M)
        if section is None or not isinstance(function, ast.FunctionDef) or function.args.kwarg:
            continue
        lines = re.findall(r"^ {4}(\w[\w, ]*):", section[1], re.M)
        named = {name.strip() for line in lines for name in line.split(",")}
        there = {each.arg for each in ast.walk(function.args) if isinstance(each, ast.arg)}
        assert named <= there, f"{NAMES[path]}: {node.name} has no {named - there}"


@pytest.mark.parametrize("name", [name for name in ORDER if (PACKAGE / name).is_dir()])
def test_a_room_says_what_it_holds_and_no_more(name: str) -> None:
    tree = TREES[PACKAGE / name / "__init__.py"]
    assert ast.get_docstring(tree)
    if name != "cli":  # there the commands are put together
        assert len(tree.body) == 1


RUN_MAIN = "\ntry:\n    from vizcomp.cli import main; main()\nexcept SystemExit: pass"
HEAVY = (
    "torch torchvision tensorflow keras onnx onnxruntime ray fsspec scipy matplotlib jinja2 numpy"
    " PIL requests"
)


@pytest.mark.parametrize(
    "code",
    [
        "import vizcomp",
        "import vizcomp.cli",
        "import sys; sys.argv = ['vizcomp', '--help']" + RUN_MAIN,
        "import sys; sys.argv = ['vizcomp', 'djpeg', '--help']" + RUN_MAIN,
        "import sys; sys.argv = ['vizcomp', 'encode', '--help']" + RUN_MAIN,
        "import sys; sys.argv = ['vizcomp', 'train', '--help']" + RUN_MAIN,
    ],
)
def test_help_loads_no_framework(code: str) -> None:
    check = f"\nimport sys\nprint('loaded:', [m for m in {HEAVY.split()!r} if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code + check], capture_output=True, text=True, check=True
    ).stdout
    assert out.rstrip().endswith("loaded: []"), out


def test_public_names_load_and_are_documented() -> None:
    for name in vizcomp.__all__:
        assert getattr(vizcomp, name) is not None
        if name != "__version__":
            assert getattr(vizcomp, name).__doc__, name
    with pytest.raises(AttributeError):
        vizcomp.no_such_name  # noqa: B018
