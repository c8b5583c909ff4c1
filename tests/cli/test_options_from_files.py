"""Options from vizcomp.toml, pyproject.toml, profiles and the environment; what is wrong with a
command line in our words."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from kit import command, jpeg_bytes, picture

from vizcomp.batch.djpeg import BatchRun, total
from vizcomp.batch.record_list import Records
from vizcomp.batch.records import FileRecord

Said = Callable[..., tuple[int, str, str]]
Patch = pytest.MonkeyPatch


@pytest.fixture
def said(tmp_path: Path, monkeypatch: Patch, capfd: pytest.CaptureFixture[str]) -> Said:
    """Runs a command in a folder of its own, where djpeg does no work: exit code, standard output,
    standard error."""

    def no_work(*arguments: object, **more: object) -> BatchRun:
        return BatchRun(Records(FileRecord), total(Records(FileRecord), 0.0), False, [])

    monkeypatch.setattr("vizcomp.batch.djpeg.run_djpeg", no_work)
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.startswith("VIZCOMP_")]:
        monkeypatch.delenv(name)
    for name, value in (
        ("NO_COLOR", "1"),
        ("COLUMNS", "200"),
        ("VIZCOMP_CACHE", str(tmp_path / "cache")),
    ):
        monkeypatch.setenv(name, value)
    (tmp_path / "photo.jpg").write_bytes(jpeg_bytes(picture(1, 64, 64)))

    def run(*arguments: object) -> tuple[int, str, str]:
        code = command(*arguments)
        return code, *capfd.readouterr()

    return run


def djpeg_settings(said, *options: object) -> dict[str, object]:
    code, out, error = said(
        "djpeg", "photo.jpg", "-o", "out", "--dry-run", "--json", "-j", 1, *options
    )
    assert code == 0, error
    return json.loads(out)["settings"]


def test_command_line_then_environment_then_profile_then_file(
    said: Said, tmp_path: Path, monkeypatch: Patch
) -> None:
    assert djpeg_settings(said, "--guide", "uniform")["quality"] == 50
    (tmp_path / "vizcomp.toml").write_text(
        'guide = "uniform"\nquality = 31\n[djpeg]\nquality = 32\n'
        "[profiles.ocr]\nquality = 33\n[profiles.ocr.djpeg]\nquality = 34\n"
    )
    assert djpeg_settings(said)["quality"] == 32
    assert djpeg_settings(said, "--profile", "ocr")["quality"] == 34
    monkeypatch.setenv("VIZCOMP_QUALITY", "35")
    assert djpeg_settings(said, "--profile", "ocr")["quality"] == 35
    monkeypatch.setenv("VIZCOMP_DJPEG_QUALITY", "36")
    assert djpeg_settings(said, "--profile", "ocr")["quality"] == 36
    assert djpeg_settings(said, "--profile", "ocr", "-q", 37)["quality"] == 37
    assert djpeg_settings(said, "-q", 37, "--profile", "ocr")["guide"] == "uniform"


def test_lossless_takes_the_place_of_what_a_file_says(said: Said, tmp_path: Path) -> None:
    (tmp_path / "vizcomp.toml").write_text(
        '[djpeg]\nmasks = "masks"\nguide = "mask"\nverify = ["inception"]\ntolerance = 0.1\n'
        "robust = true\nmin_quality = 30\nmax_side = 100\n"
    )
    (tmp_path / "masks").mkdir()
    settings = djpeg_settings(said, "--lossless")
    assert (settings["masks"], settings["verify"], settings["tolerance"]) == (None, [], 0)
    assert (settings["robust"], settings["min_quality"], settings["max_side"]) == (None, 20, None)


def test_a_file_above_is_found_named_in_one_line_and_can_be_left_out(
    said: Said, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.vizcomp]\nguide = "uniform"\n[tool.vizcomp.djpeg]\nmin-saving = "5%"\n'
    )
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    # says nothing of vizcomp: the search goes on
    (below / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    monkeypatch.chdir(below)
    code, _, error = said("djpeg", tmp_path / "photo.jpg", "-o", "out", "--dry-run", "-j", 1)
    assert code == 0
    lines = [line for line in error.splitlines() if "pyproject.toml" in line]
    assert lines == [f"options from {tmp_path / 'pyproject.toml'}: guide, min-saving"]
    code, _, error = said(
        "djpeg",
        tmp_path / "photo.jpg",
        "-o",
        "out",
        "--dry-run",
        "-j",
        1,
        "--config",
        "none",
        "--guide",
        "uniform",
    )
    assert "pyproject" not in error
    code, _, error = said("depth", "nowhere.jpg", "-o", "out", "--dry-run")
    assert "pyproject" not in error  # nothing in it concerns this command


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("qualty = 3", "did you mean quality?"),
        ("[djpeg]\nstrenght = 1", "there is no option djpeg.strenght"),
        ("[djpg]\nquality = 1", "did you mean djpeg?"),
        ("[profiles.ocr]\nguid = 'text'", "there is no option profiles.ocr.guid"),
        ("[djpeg]\nquality = true", "quality is neither text nor a number"),
        ("[djpeg]\nquality = [1, 2]", "quality takes one value"),
        ("overwrite = 'x'", "overwrite is neither true nor false"),
        ("quality = 400", "--quality (of "),
        ("quality = ", "is no TOML"),
        ("[djpeg.more]\nquality = 1", "there is no option djpeg.more"),
        ("inputs = 'a'", "there is no option inputs"),
        ("profiles = 3", "there is no option profiles"),
    ],
)
def test_what_a_file_may_not_say(said: Said, tmp_path: Path, text: str, wanted: str) -> None:
    (tmp_path / "vizcomp.toml").write_text(text)
    code, _, error = said("djpeg", "photo.jpg", "-o", "out")
    assert code == 2
    assert wanted in error
    assert len(error.strip().splitlines()) == 2
    assert not (tmp_path / "out").exists()


def test_an_unknown_profile_and_one_without_a_file(said: Said, tmp_path: Path) -> None:
    code, _, error = said("djpeg", "photo.jpg", "-o", "out", "--profile", "ocr")
    assert (code, "there is no vizcomp.toml" in error) == (2, True)
    (tmp_path / "vizcomp.toml").write_text("[profiles.ocr]\nquality = 3\n")
    code, _, error = said("djpeg", "photo.jpg", "-o", "out", "--profile", "orc")
    assert (code, "did you mean ocr?" in error) == (2, True)


def test_options_that_may_be_given_several_times(
    said: Said, tmp_path: Path, monkeypatch: Patch
) -> None:
    (tmp_path / "vizcomp.toml").write_text(
        '[eval]\nbaseline = ["jpeg", "webp"]\nclassifier = "watcher"\n'
    )
    code, _, error = said("eval", "--data", "nowhere", "-o", "out")
    assert code == 2
    assert "options from" in error
    assert "classifier, baseline" in error
    monkeypatch.setenv("VIZCOMP_VERIFY", "a.onnx b.onnx")
    code, _, error = said("djpeg", "photo.jpg", "-o", "out", "--config", "none")
    assert code == 2
    assert "a.onnx" in error


def test_a_variable_that_means_nothing_is_said(said: Said, monkeypatch: Patch) -> None:
    monkeypatch.setenv("VIZCOMP_QUALTY", "3")
    code, _, error = said(
        "djpeg", "photo.jpg", "-o", "out", "--dry-run", "--guide", "uniform", "-j", 1
    )
    assert code == 0
    assert "VIZCOMP_QUALTY is no option and is not used; did you mean VIZCOMP_QUALITY?" in error
    monkeypatch.setenv("VIZCOMP_QUALITY", "many")
    code, _, error = said("djpeg", "photo.jpg", "-o", "out")
    assert (code, "--quality (of VIZCOMP_QUALITY) 'many' is no number" in error) == (2, True)


def test_every_option_has_a_variable_and_a_key(said: Said) -> None:
    import typer

    from vizcomp.cli import app
    from vizcomp.cli.usage import commands, keys, variables

    for path, one in commands(typer.main.get_command(app)):
        for parameter in one.params:
            if parameter.param_type_name == "option":
                assert keys(parameter), parameter.name
                assert variables(path, parameter), parameter.name


@pytest.mark.parametrize(
    ("arguments", "code", "wanted"),
    [
        ((), 0, "Usage: vizcomp"),
        (("weights",), 0, "Usage: vizcomp weights"),
        (
            ("djpeg", "x", "-o", "o", "-q", "200"),
            2,
            "error: --quality 200 is out of range\n  try: it goes from 1 to 100\n",
        ),
        (
            ("djpeg", "x", "-o", "o", "-j", "-1"),
            2,
            "error: --jobs -1 is out of range\n  try: it is at least 0\n",
        ),
        (
            ("djpeg", "x", "-o", "o", "-q", "high"),
            2,
            "error: --quality 'high' is no number\n  try: it goes from 1 to 100\n",
        ),
        (("djpeg", "x", "-o", "o", "-j", "1.5"), 2, "error: --jobs '1.5' is no whole number\n"),
        (
            ("djpeg", "x"),
            2,
            "error: --output is missing\n"
            "  try: vizcomp djpeg INPUT... --output DIR, or vizcomp djpeg --help\n",
        ),
        (("depth",), 2, "error: INPUT... is missing\n"),
        (
            ("weights", "add"),
            2,
            "error: NAME is missing\n"
            "  try: vizcomp weights add NAME FILE, or vizcomp weights add --help\n",
        ),
        (("djpeg", "x", "-o", "o", "--min-saving", "5x"), 2, "--min-saving '5x' is not a share\n"),
        (("djpeg", "x", "-o", "o", "--guide", "dept"), 2, "system:NAME or a trained PATH.onnx"),
        (("djpeg", "x", "-o", "o", "--format", "gif"), 2, "error: unknown --format 'gif'\n"),
        (
            ("djpeg", "x", "-o", "o", "--qualty", "3"),
            2,
            "error: there is no option --qualty\n  try: did you mean --quality?\n",
        ),
        (
            ("djpeg", "photo.jpg", "-o", "o", "--tolerance", "0.1"),
            2,
            "error: --tolerance has no effect without --verify\n"
            "  try: name a vision system, or omit it\n",
        ),
        (
            ("encode", "photo.jpg", "-o", "o", "--no-robust"),
            2,
            "error: --robust has no effect without --verify\n",
        ),
        (
            ("eval", "--baseline", "none", "--baseline", "jpeg"),
            2,
            "error: --baseline none contradicts the others\n  try: omit one of them\n",
        ),
        (("djpg",), 2, "error: no such command 'djpg'. Did you mean 'djpeg'?\n"),
    ],
)
def test_a_wrong_command_line_is_two_lines_of_ours(
    said: Said, arguments: tuple[str, ...], code: int, wanted: str
) -> None:
    found, out, error = said(*arguments)
    assert found == code
    assert wanted in (error if code else out)
    assert not code or len(error.splitlines()) == 2


@pytest.mark.parametrize(
    ("command_name", "option", "begun", "wanted"),
    [
        ("djpeg", "guide", "depth+", {"depth+text", "depth+mask"}),
        ("djpeg", "table", "", {"auto", "machine", "photo"}),
        ("djpeg", "metadata", "e", {"essential"}),
        ("djpeg", "verify", "", {"text", "inception", "own.onnx", "torchvision:"}),
        ("djpeg", "depth_model", "c", {"compact"}),
        ("encode", "model", "", {"photo", "cifar", "cifar-label"}),
        ("eval", "baseline", "w", {"webp"}),
        ("look", "system", "own", {"own.onnx"}),
        ("djpeg", "engine", "r", {"ray"}),
    ],
)
def test_values_are_completed(
    said: Said, tmp_path: Path, command_name: str, option: str, begun: str, wanted: set[str]
) -> None:
    import typer

    from vizcomp.cli import app
    from vizcomp.cli.completion import complete
    from vizcomp.cli.usage import commands

    (tmp_path / "own.onnx").write_bytes(b"")
    one = dict(commands(typer.main.get_command(app)))[(command_name,)]
    parameter = next(p for p in one.params if p.name == option)
    values = complete((command_name,), parameter)
    assert values is not None
    found = {item.value for item in values(None, begun)}
    assert wanted <= found
    assert all(value.startswith(begun) for value in found)


def test_the_shell_asks_for_completions(said: Said, monkeypatch: Patch) -> None:
    monkeypatch.setenv("_VIZCOMP_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "vizcomp djpeg --table ma")
    monkeypatch.setenv("COMP_CWORD", "3")
    code, out, _ = said()
    assert (code, out.split()) == (0, ["machine"])
