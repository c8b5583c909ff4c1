"""Policies as files: written, read, and refused where somebody changed them."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import Any

import pytest

from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError
from vizcomp.fitting.policy import (
    OPTIONS,
    Certificate,
    CertifiedSystem,
    Policy,
    encoder_fingerprint,
)


def a_policy(**changes: Any) -> Policy:
    """A policy as `vizcomp fit` makes them, for a system with a name that needs escapes."""
    certificate = Certificate(
        risk=0.05, confidence=0.95, photos=700, changed=20, bound=0.041, date="2026-01-02"
    )
    values: dict[str, Any] = {
        "settings": DjpegSettings(quality=32.5, guide="uniform", strength=0.0, table="photo"),
        "certificate": certificate,
        "systems": (
            CertifiedSystem(name='m "1"\\ü\n.onnx', fingerprint="0123456789ab", changed=20),
        ),
    }
    return Policy(**{**values, **changes})


def test_a_policy_comes_back_as_it_was(tmp_path: Path) -> None:
    policy = a_policy()
    policy.write(tmp_path / "policy.toml")
    assert Policy.read(tmp_path / "policy.toml") == policy
    assert Policy.read(str(tmp_path / "policy.toml")).other_encoder == ""
    values = tomllib.loads((tmp_path / "policy.toml").read_text())
    assert set(values) == {"policy", "certificate", "system", "made_with"}
    assert set(values["policy"]) == set(OPTIONS)
    assert {"risk", "confidence", "photos", "changed", "bound", "date"} <= set(
        values["certificate"]
    )
    assert {"name", "fingerprint", "reading"} <= set(values["system"][0])


def test_a_policy_names_its_test_and_one_without_is_read_as_before(tmp_path: Path) -> None:
    for test in ("betting", ""):
        certificate = dataclasses.replace(a_policy().certificate, test=test)
        policy = a_policy(certificate=certificate)
        policy.write(tmp_path / "policy.toml")
        values = tomllib.loads((tmp_path / "policy.toml").read_text())["certificate"]
        assert values.get("test", "") == test
        assert ("test" in values) is bool(test)
        assert Policy.read(tmp_path / "policy.toml") == policy


def test_a_policy_holds_pixels_and_chroma_where_they_were_chosen(tmp_path: Path) -> None:
    policy = a_policy(settings=DjpegSettings(guide="uniform", max_side=640, subsampling="keep"))
    policy.write(tmp_path / "policy.toml")
    assert Policy.read(tmp_path / "policy.toml") == policy
    values = tomllib.loads((tmp_path / "policy.toml").read_text())["policy"]
    assert set(values) == {*OPTIONS, "max-side", "subsampling"}
    scaled = a_policy(settings=DjpegSettings(guide="uniform", scale=0.5))
    scaled.write(tmp_path / "policy.toml")
    assert Policy.read(tmp_path / "policy.toml").settings.scale == 0.5


def test_the_headline_is_the_certificate() -> None:
    text = a_policy().to_toml()
    assert "At most 5% of the answers change, with 95% confidence (20 of 700 changed" in text
    boxes = dataclasses.replace(a_policy().certificate, loss="1 - F1", mean_loss=0.0312)
    assert boxes.sentence.startswith("The mean loss of F1 is at most 0.05, with 95% confidence")
    assert "mean loss 0.0312" in boxes.sentence


def test_layout_and_comments_may_change_but_no_value(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    text = a_policy().to_toml()
    path.write_text("# mine\n\n" + text.replace(" = ", "="))
    assert Policy.read(path) == a_policy()
    for old, new in (
        ("32.5", "12.5"),
        ("risk = 0.05", "risk = 0.01"),
        ("0123456789ab", "ab0123456789"),
        ("changed = 20", "changed = 2"),
    ):
        assert old in text
        path.write_text(text.replace(old, new))
        with pytest.raises(InputError, match="was changed by hand") as caught:
            Policy.read(path)
        assert "fit" in caught.value.hint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[policy]\nquality = 5\n",
        "no toml",
        "\xff",
        "[made_with]\nchecksum = 1\n",
        "made_with = 3\n",
        "[[made_with]]\na = 1\n",
    ],
)
def test_what_is_no_policy_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    path = tmp_path / "policy.toml"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError) as caught:
        Policy.read(path)
    assert "\n" not in caught.value.message
    with pytest.raises(InputError):
        Policy.read(tmp_path / "gone.toml")


def test_values_of_a_wrong_kind_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "policy.toml"
    path.write_text(a_policy().to_toml().replace("risk = 0.05", 'risk = "much"'))
    with pytest.raises(InputError, match="no policy"):
        Policy.read(path)


def test_another_encoder_is_said() -> None:
    assert encoder_fingerprint() == encoder_fingerprint()
    assert "does not cover" in a_policy(encoder="000000000000", version="0.0.1").other_encoder
