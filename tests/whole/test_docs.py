"""The documentation against the code: commands run, options exist, links lead somewhere, pages are
up to date."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shlex
import shutil
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer.main
from kit import command
from PIL import Image
from test_architecture import ORDER

import vizcomp
from vizcomp import cli
from vizcomp.batch.records import CodecRecord, CodecTotals, FileRecord, Totals
from vizcomp.evaluation.results import EvalPoint

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
LATER = ("chelsea.png", "rocket.jpg")  # samples for all commands of the README but the first
PAGES = sorted(
    path
    for folder in (".", "docs", "docs/decisions", "docs/models", "benchmarks", "samples", "recipes")
    for path in (ROOT / folder).glob("*.md")
)
# Pages on the commands; those of decisions and benchmarks name options of other programs.
GUIDES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]
COMMANDS = {
    f"{name} {inner}" if inner else name: each
    for name, command in typer.main.get_command(cli.app).commands.items()  # type: ignore[attr-defined]
    for inner, each in getattr(command, "commands", {"": command}).items()
}
FLAGS = {
    name: (
        {"-h", "--help"}
        | {o for p in command.params for o in (*p.opts, *p.secondary_opts) if o.startswith("-")}
    )
    for name, command in COMMANDS.items()
}


def blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines(text: str) -> list[list[str]]:
    """The lines of a page that start with `vizcomp`, indented or not, as words; what goes on after
    a backslash is part of its line."""
    text = re.sub(r" *\\\n *", " ", text)
    return [
        shlex.split(line, comments=True)
        for line in re.findall(r"^ *(vizcomp [a-z].*)$", "\n".join(code(text)), re.MULTILINE)
    ]


def code(text: str) -> list[str]:
    fenced = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}\S.*$", text, re.MULTILINE)
    inline = re.findall(r"`(vizcomp [^`\n]+)`", text)
    return [*fenced, *indented, *inline]


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with the sample photos in it, as a clone has them."""
    shutil.copytree(ROOT / "samples", tmp_path / "samples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generator(name: str = "make_cli") -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_command_reference_is_up_to_date() -> None:
    assert (ROOT / "docs" / "cli.md").read_text("utf-8") == generator().page(), (
        "run python docs/make_cli.py"
    )


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_reference_has_every_command_and_option(name: str) -> None:
    text = (ROOT / "docs" / "cli.md").read_text("utf-8")
    section = re.search(rf"^## vizcomp {name}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    assert section, f"docs/cli.md misses {name}"
    missing = {
        flag
        for flag in FLAGS[name] - {"-h", "--help"}
        if not re.search(f"[`/]{flag}[`/]", section[1])
    }
    assert not missing


def test_every_option_of_djpeg_is_explained() -> None:
    text = (ROOT / "docs" / "djpeg.md").read_text("utf-8")
    missing = {flag for flag in FLAGS["djpeg"] if flag.startswith("--") and flag not in text}
    assert missing <= {"--help", "--output"}


@pytest.mark.parametrize("page", GUIDES, ids=lambda p: p.name)
def test_commands_and_options_that_pages_name_exist(page: Path) -> None:
    text = page.read_text("utf-8")
    for words in command_lines(text):
        if len(words) == 1:
            continue
        if words[1].startswith("-"):
            assert words[1] in {"--help", "--version"}, words
            continue
        name = " ".join(words[1:3]) if words[1] == "weights" else words[1]
        assert name in COMMANDS, words
        unknown = {w.split("=")[0] for w in words[2:] if re.match(r"--?[a-z]", w)} - FLAGS[name]
        assert not unknown, words
    known = set().union(*FLAGS.values(), {"--version"})
    spans = re.findall(r"`(--?[a-z][^`]*)`", text)
    unknown = {
        flag for span in spans for flag in re.findall(r"(?:^|(?<=[ /]))--?[a-z][a-z-]*", span)
    } - known
    assert not unknown


def test_the_readme_names_the_install_and_test_commands_of_the_check() -> None:
    first, second = (block.splitlines() for block in blocks(README, "sh")[:2])
    assert first == ["pip install .", "vizcomp djpeg samples -o out"]
    assert second == ["pip install -e '.[dev]'", "pytest -q"]
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    for page in PAGES:
        for extra in re.findall(r"(?:vizcomp|\.)\[([a-z]+)\]'", page.read_text("utf-8")):
            assert extra in extras, page


def test_the_readme_s_commands_work(clone: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines = [
        shlex.split(line, comments=True)
        for block in blocks(README, "sh")
        for line in block.splitlines()
        if line.startswith("vizcomp ")
    ]
    assert len(lines) > 5
    photos = [p for p in (clone / "samples").iterdir() if p.suffix != ".md"]
    for at, words in enumerate(lines):
        if at == 1:  # the first command had all samples, two do for the others
            for path in set(photos) - {clone / "samples" / name for name in LATER}:
                path.unlink()
            photos = [path for path in photos if path.exists()]
            assert len(photos) == len(LATER)
            for path in photos:  # a quarter of the pixels, and of the work
                with Image.open(path) as photo:
                    half = photo.resize((photo.width // 2, photo.height // 2))
                half.save(path)
        if {"text", "system:text"} & set(words) and importlib.util.find_spec("rapidocr") is None:
            continue
        if "photos" in words and not (clone / "photos").exists():  # the reader's own
            shutil.copytree(
                clone / "samples", clone / "photos", ignore=shutil.ignore_patterns("*.md")
            )
        assert command(*words[1:]) == 0, words
        out, _ = capfd.readouterr()
        if words[1] == "info":
            assert "all checksums match" in out
            continue
        folder = clone / words[words.index("-o") + 1]
        if "--dry-run" in words:
            assert not folder.exists()
        elif words[1] == "djpeg":
            totals = json.loads((folder / "report.json").read_text("utf-8"))["totals"]
            assert (totals["files"], totals["failed"], totals["skipped"]) == (len(photos), 0, 0)
            assert totals["output_bytes"] <= totals["source_bytes"]
            assert f"{totals['saving_vs_source']:.1%} smaller" in out, "the saving is printed"
        elif words[1] == "eval":
            points = json.loads((folder / "report.json").read_text("utf-8"))["points"]
            assert {p["codec"] for p in points} == {
                "djpeg",
                "jpeg",
                "jpeg optimised",
                "webp",
                "avif",
            }
            assert all(p["images"] == len(photos) for p in points)
        else:
            suffix = {
                "encode": ".vzc",
                "decode": ".png",
                "depth": ".depth.png",
                "look": ".look.jpg",
            }[words[1]]
            assert len(list(folder.glob(f"*{suffix}"))) == len(photos)


def test_the_readme_s_python_example_works(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (example,) = blocks(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    rows = [line.rsplit(" ", 2) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == len([p for p in (clone / "samples").iterdir() if p.suffix != ".md"])
    assert all(0 < int(small) < int(source) for _, source, small in rows)


@pytest.mark.parametrize("name", vizcomp.__all__)
def test_public_names_are_documented(name: str) -> None:
    assert f"`vizcomp.{name}`" in (ROOT / "docs" / "index.md").read_text("utf-8")


def test_the_index_names_every_page() -> None:
    docs = ROOT / "docs"
    links = set(re.findall(r"\]\(([^)#\s]+)", (docs / "index.md").read_text("utf-8")))
    pages = [*docs.glob("*.md"), *docs.glob("models/*.md"), *docs.glob("decisions/*.md")]
    missing = {str(page.relative_to(docs)) for page in pages} - links
    assert missing == {"index.md"}


@pytest.mark.parametrize(
    ("page", "kind"),
    [
        ("report.md", FileRecord),
        ("report.md", Totals),
        ("codec.md", CodecRecord),
        ("codec.md", CodecTotals),
        ("eval.md", EvalPoint),
    ],
    ids=lambda each: getattr(each, "__name__", each),
)
def test_every_field_of_a_report_stands_in_its_page(page: str, kind: Any) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    missing = {
        f.name for f in dataclasses.fields(kind) if not re.search(rf"[`\"]{f.name}[`\"]", text)
    }
    assert not missing


def anchors(text: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target.read_text("utf-8")), f"{page.name}: {link}"


@pytest.mark.parametrize("folder", ["benchmarks", "recipes"])
def test_every_script_stands_in_the_list_of_its_folder(folder: str) -> None:
    listed = (ROOT / folder / "README.md").read_text("utf-8")
    scripts = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert scripts
    assert [name for name in scripts if name not in listed] == []


def test_the_tree_of_the_house_is_the_one_on_disk() -> None:
    maker = generator("make_architecture")
    assert (ROOT / "docs" / "architecture.md").read_text("utf-8") == maker.page(), (
        "run python docs/make_architecture.py"
    )
    assert maker.order() == ORDER
