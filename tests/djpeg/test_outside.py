"""What lies outside a mask, left out of the picture."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_kit import exif
from kit import command, jpeg_bytes, tree
from PIL import Image

import vizcomp
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, SettingsError
from vizcomp.photos.photo import load_bytes


def noise(height: int = 96, width: int = 160) -> np.ndarray:
    return np.random.default_rng(3).integers(60, 256, (height, width, 3)).astype(np.uint8)


def left_half(height: int = 96, width: int = 160) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[:, : width // 2] = 255
    return mask


def shown(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def dropped(image: Any, **more: Any) -> Any:
    return vizcomp.compress(
        image,
        **{"guide": "mask", "mask_outside": "drop", "mask": left_half(), "quality": 90, **more},
    )


@pytest.mark.parametrize("name", ["jpeg", "webp", "avif"])
@pytest.mark.parametrize("scale", [None, 0.5])
def test_nothing_is_left_outside(name: str, scale: float | None) -> None:
    data = dropped(jpeg_bytes(noise()), format=name, scale=scale).data
    pixels = shown(data)
    middle = pixels.shape[1] // 2
    assert pixels[:, :middle].mean() > 100
    assert pixels[:, middle + 16 :].max() <= 6
    # the same but for what is outside: the same file
    other = noise()
    other[:, 80:] = 200
    assert (
        dropped(other, format=name, scale=scale).data
        == dropped(noise(), format=name, scale=scale).data
    )


def test_a_mask_that_keeps_all_changes_nothing() -> None:
    jpeg = jpeg_bytes(noise())
    everything = np.full((4, 4), 255, np.uint8)
    assert (
        dropped(jpeg, mask=everything).data
        == vizcomp.compress(jpeg, guide="mask", mask=everything, quality=90).data
    )


def test_masks_are_as_displayed() -> None:
    turned = load_bytes(jpeg_bytes(noise(), exif=exif(6)), "turned")
    made = dropped(turned, mask=left_half(160, 96))
    pixels = np.asarray(
        Image.open(io.BytesIO(made.data)).convert("RGB")
    )  # stored: to the left as displayed is below
    assert pixels[48 + 16 :].mean() > 100
    assert pixels[: 48 - 16].max() <= 6


def test_a_source_is_not_kept_however_small_it_is() -> None:
    source = jpeg_bytes(noise(), quality=40)
    for more in ({}, {"min_saving": 0.9}):
        mask = np.full((96, 160), 255, np.uint8)
        mask[:, 152:] = 0
        made = dropped(source, mask=mask, **{"quality": 100, "table": "photo", **more})
        assert not made.kept
        assert shown(made.data)[:, 153:].max() <= 6
        assert any("larger than its source" in notice for notice in made.notices) == (
            len(made.data) >= len(source)
        )
    assert len(made.data) >= len(source)


def test_what_contradicts_or_would_drop_everything_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs the guide mask"):
        DjpegSettings(mask_outside="drop")
    with pytest.raises(SettingsError, match="contradict"):
        DjpegSettings(mask_outside="drop", guide="mask", metadata="all")
    with pytest.raises(SettingsError, match="unknown `mask_outside`"):
        DjpegSettings(mask_outside="black", guide="mask")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 of 255"):
        dropped(noise(), mask=left_half() // 255)
    with pytest.raises(InputError, match="needs a mask"):
        vizcomp.djpeg.compress.compress(
            load_bytes(jpeg_bytes(noise()), "a"), DjpegSettings(mask_outside="drop", guide="mask")
        )


def test_the_report_shows_no_source(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name, data in (
        ("photos/a.jpg", jpeg_bytes(noise())),
        ("photos/b.jpg", jpeg_bytes(noise())),
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "masks").mkdir()
    Image.fromarray(left_half()).save(tmp_path / "masks/a.png")
    Image.fromarray(left_half() // 255).save(tmp_path / "masks/b.png")
    asked = (
        "djpeg",
        tmp_path / "photos",
        "-o",
        tmp_path / "out",
        "--guide",
        "mask",
        "--masks",
        tmp_path / "masks",
        "-j1",
    )
    assert command(*asked, "--mask-outside", "drop") == 1
    assert "a.jpg" in tree(tmp_path / "out")
    assert "data:image" not in (tmp_path / "out/report.html").read_text("utf-8")
    first, second = json.loads((tmp_path / "out/report.json").read_text("utf-8"))["files"]
    assert (first["status"], second["status"]) == ("ok", "failed")
    assert "1 of 255" in second["error"]
    assert (
        command("djpeg", tmp_path / "photos", "-o", tmp_path / "o2", "--mask-outside", "drop") == 2
    )
    assert "--mask-outside drop needs" in capfd.readouterr().err


def test_systems_are_compared_on_what_is_kept() -> None:
    def dark(picture: np.ndarray) -> np.ndarray:
        share = (picture[:, 90:] < 30).mean()  # only black is
        return np.array([1 - share, share])

    system = vizcomp.System(dark, kind="classes")
    assert dropped(noise(), verify=system).verify_state == "verified"
    assert list(dropped(noise(), watch_with=system).watch_same.values()) == [True]
