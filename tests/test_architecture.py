"""The house of docs/architecture.md: imports go down only, and the light commands load nothing heavy."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import vizcomp

PACKAGE = Path(vizcomp.__file__).parent

# Module (or package) to floor, as docs/architecture.md draws them.
FLOORS = {
    "_version": 0,
    "errors": 0,
    "results": 0,
    "_native": 0,
    "metrics": 1,
    "jpeg": 1,
    "guide": 1,
    "vzc": 1,
    "images": 2,
    "storage": 2,
    "datasets": 2,
    "weights": 2,
    "downloads": 2,
    "journal": 2,
    "nets": 3,
    "depth": 4,
    "djpeg": 4,
    "vision": 4,
    "verify": 4,
    "neural": 4,
    "training": 4,
    "codecs": 5,
    "evaluation": 5,
    "engines": 5,
    "ray_engine": 5,
    "loop": 5,
    "batch": 5,
    "codec_batch": 5,
    "contents": 5,
    "report": 5,
    "cli": 6,
    "__init__": 6,
    "__main__": 6,
}
SAME_FLOOR = {
    ("djpeg", "depth"),
    ("loop", "engines"),
    ("batch", "loop"),
    ("codec_batch", "loop"),
    ("codec_batch", "batch"),
    ("codec_batch", "engines"),
    ("verify", "vision"),
    ("evaluation", "codecs"),
    ("evaluation", "engines"),
    ("report", "report"),
    ("cli", "cli"),
    ("datasets", "images"),
    ("images", "storage"),
    ("journal", "storage"),
    ("engines", "ray_engine"),
    ("ray_engine", "engines"),
    ("weights", "downloads"),
    ("journal", "weights"),
    ("training", "neural"),
    ("training", "training"),
    ("nets", "nets"),
    ("__main__", "cli"),
    ("vzc", "vzc"),
    ("jpeg", "jpeg"),
}
TOP_LEVEL = {  # third-party packages that a module may import at its top
    "metrics": {"numpy"},
    "jpeg": {"numpy"},
    "guide": {"numpy"},
    "vzc": {"numpy"},
    "datasets": {"numpy"},
    "images": {"numpy", "PIL"},
    "nets": {"numpy"},
    "depth": {"numpy", "PIL"},
    "djpeg": {"numpy"},
    "neural": {"numpy"},
    "training": {"numpy", "PIL", "onnx", "safetensors"},
    "vision": {"numpy", "PIL"},
    "codecs": {"numpy", "PIL"},
    "evaluation": {"numpy"},
    "batch": {"numpy"},
    "codec_batch": {"numpy"},
    "report": set(),
    "cli": {"typer"},
}
TORCH_AT_TOP = {  # files that no light command imports
    "nets/classifiers.py",
    "nets/compact_depth.py",
    "nets/inception.py",
    "nets/recurrent.py",
    "nets/search.py",
    "nets/ssim.py",
    "nets/text_regions.py",
    "nets/watcher.py",
    "nets/whitened.py",
    "training/classifier.py",
    "training/codec.py",
    "training/contexts.py",
    "training/depth.py",
    "training/depth_scores.py",
    "training/export.py",
    "training/losses.py",
    "training/loop.py",
    "training/processes.py",
    "training/views.py",
}
SOURCES = sorted(PACKAGE.rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(tree: ast.AST) -> list[str]:
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            module = node.module or ""
            names += [f"{module}.{alias.name}" for alias in node.names] if module == "vizcomp" else [module]
    return names


def test_every_module_has_a_floor() -> None:
    assert {room(path) for path in SOURCES} <= set(FLOORS)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_down(path: Path) -> None:
    here = room(path)
    for name in imported(ast.parse(path.read_text())):
        if not name.startswith("vizcomp."):
            continue
        there = name.split(".")[1]
        if there == "__version__":
            continue
        assert there in FLOORS, f"{path.name} imports {name}, which has no floor"
        assert FLOORS[there] < FLOORS[here] or (here, there) in SAME_FLOOR, f"{here} must not import {there}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_packages_are_imported_where_they_are_needed(path: Path) -> None:
    tree = ast.parse(path.read_text())
    top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    for node in top:
        for name in imported(node):
            package = name.split(".")[0]
            if package != "vizcomp" and package not in sys.stdlib_module_names:
                allowed = TOP_LEVEL.get(room(path), set())
                if str(path.relative_to(PACKAGE)) in TORCH_AT_TOP:
                    allowed = allowed | {"torch"}
                assert package in allowed, f"{path.name} imports {package} at its top"


RUN_MAIN = "\ntry:\n    from vizcomp.cli import main; main()\nexcept SystemExit: pass"
HEAVY = "torch torchvision tensorflow keras onnx onnxruntime ray fsspec scipy matplotlib numpy PIL requests"


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
    out = subprocess.run([sys.executable, "-c", code + check], capture_output=True, text=True, check=True).stdout
    assert out.rstrip().endswith("loaded: []"), out


def test_public_names_load_and_are_documented() -> None:
    for name in vizcomp.__all__:
        assert getattr(vizcomp, name) is not None
        if name != "__version__":
            assert getattr(vizcomp, name).__doc__, name
    with pytest.raises(AttributeError):
        vizcomp.no_such_name  # noqa: B018
