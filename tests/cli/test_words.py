"""Errors speak of settings; the command line makes options of them."""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import pytest
from kit import command

from vizcomp.batch.settings import BatchSettings, DecodeSettings, EncodeSettings
from vizcomp.cli.words import in_flags
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, SettingsError


@pytest.mark.parametrize(
    ("said", "shown"),
    [
        ("`min_saving` 5 is out of range", "--min-saving 5 is out of range"),
        (
            "use `guide` uniform or detail, or give `depth_maps`",
            "use --guide uniform or detail, or give --depth-maps",
        ),
        ("try fewer `jobs`", "try fewer --jobs"),
        ("output exists; `overwrite` replaces it", "output exists; --overwrite replaces it"),
        ("omit `metric`, or use `model` nyu.", "omit --metric, or use --model nyu."),
        ("(see `policy`)", "(see --policy)"),
        ("check `ray status` there", "check `ray status` there"),
        ("`a`.jpg does not exist", "`a`.jpg does not exist"),
        ("in/`quality`/b.jpg is empty", "in/`quality`/b.jpg is empty"),
    ],
)
def test_settings_become_options(said: str, shown: str) -> None:
    assert in_flags(said) == shown


def test_an_error_without_a_hint_gets_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for error, hint in (
        (SettingsError("`quality` is odd"), "--help lists the options of a command"),
        (FormatError("a.tar is broken"), "give another file, or make this one again"),
    ):

        def fails(app: object, error: Exception = error) -> int:
            raise error

        monkeypatch.setattr("vizcomp.cli.read", fails)
        assert command("weights", "path") == error.exit_code
        said = capsys.readouterr().err.splitlines()
        assert len(said) == 2
        assert said[1] == f"  try: {hint}"


WRONG: list[tuple[type[Any], dict[str, Any], str]] = [
    (DjpegSettings, {"quality": 500}, "quality"),
    (DjpegSettings, {"strength": -1}, "strength"),
    (DjpegSettings, {"guide": "dept"}, "guide"),
    (DjpegSettings, {"min_saving": 5}, "min_saving"),
    (BatchSettings, {"min_quality": 500}, "min_quality"),
    (BatchSettings, {"tolerance": 2}, "tolerance"),
    (BatchSettings, {"tolerance": 0.1}, "tolerance"),
    (BatchSettings, {"robust": False}, "robust"),
    (BatchSettings, {"min_quality": 30, "watch_with": ("a",)}, "min_quality"),
    (BatchSettings, {"verify": ("a",), "watch_with": ("a",)}, "watch_with"),
    (BatchSettings, {"resume": True, "overwrite": True}, "resume"),
    (EncodeSettings, {"tolerance": 2}, "tolerance"),
    (EncodeSettings, {"tolerance": 0.1}, "tolerance"),
    (EncodeSettings, {"robust": True}, "robust"),
    (EncodeSettings, {"bpp": -1}, "bpp"),
    (EncodeSettings, {"resume": True, "overwrite": True}, "overwrite"),
    (DecodeSettings, {"resume": True, "overwrite": True}, "overwrite"),
]


@pytest.mark.parametrize(
    ("kind", "values", "name"), WRONG, ids=[f"{k.__name__}-{n}-{v[n]}" for k, v, n in WRONG]
)
def test_a_wrong_setting_is_named_as_python_has_it(
    kind: type[Any], values: dict[str, Any], name: str
) -> None:
    with pytest.raises(SettingsError) as caught:
        kind(**values)
    said = f"{caught.value.message}; {caught.value.hint}"
    assert not re.search(r"(?<!\w)--\w", said)
    assert f"`{name}`" in said
    assert name in {field.name for field in dataclasses.fields(kind)}
    assert f"--{name.replace('_', '-')}" in in_flags(said)
