"""The network behind the guide `text`: shapes, sizes, export, refusals, and that it knows lettering
when it sees it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.djpeg.text_regions import LONG_SIDE, TextRegions
from vizcomp.errors import ModelError
from vizcomp.photos.photo import load


@pytest.fixture(scope="module")
def network() -> TextRegions:
    return TextRegions()


@pytest.mark.parametrize("shape", [(480, 640), (1, 1), (1, 300), (17, 33), (100, 7)])
def test_one_value_for_each_block(network: TextRegions, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(np.uint8)
    found = network(image)
    assert found.shape == (-(-shape[0] // 8), -(-shape[1] // 8))
    assert found.dtype == np.float32
    assert np.isfinite(found).all()


def test_grey_is_as_good_as_grey_in_three_planes(network: TextRegions) -> None:
    grey = np.random.default_rng(1).integers(0, 256, (64, 80)).astype(np.uint8)
    np.testing.assert_array_equal(network(grey), network(np.repeat(grey[..., None], 3, 2)))


def test_large_photos_are_scaled(network: TextRegions) -> None:
    found = network(np.full((3000, 4000, 3), 90, np.uint8))
    assert found.shape == (LONG_SIDE * 3 // 4 // 8, LONG_SIDE // 8)


def _street_sign() -> np.ndarray:
    picture = Image.new("RGB", (320, 240), (120, 130, 140))
    ImageDraw.Draw(picture).rectangle((60, 80, 260, 150), fill=(20, 60, 30))
    ImageDraw.Draw(picture).text(
        (75, 90), "MARKET ST", (240, 240, 230), font=ImageFont.load_default(34)
    )
    return np.asarray(picture)


def test_lettering_stands_out(network: TextRegions) -> None:
    found = network(_street_sign())
    inside, outside = found[12:16, 10:28], np.concatenate([found[:6].ravel(), found[24:].ravel()])
    assert np.median(inside) > 0
    assert np.median(inside) > outside.max()


def test_the_text_guide_keeps_lettering(tmp_path: Path) -> None:
    """At about equal bytes, the sign is nearer to the source than without the guide."""
    sign = _street_sign().astype(np.int16)
    texture = np.random.default_rng(2).normal(0, 12, sign.shape[:2])[..., None]
    texture[80:150, 60:260] = 0
    source = np.clip(sign + texture, 0, 255).astype(np.uint8)
    Image.fromarray(source).save(tmp_path / "sign.png")
    photo = load(tmp_path / "sign.png")
    guided = compress(photo, DjpegSettings(guide="text", strength=1.0))
    plain = compress(photo, DjpegSettings(guide="uniform", target_size=len(guided.data)))

    def error(data: bytes) -> float:
        (tmp_path / "result.jpg").write_bytes(data)
        difference = load(tmp_path / "result.jpg").pixels.astype(float) - source
        return float((difference[88:136, 72:256] ** 2).mean())

    assert error(guided.data) < 0.8 * error(plain.data)


def test_turned_photos_are_looked_at_upright(tmp_path: Path) -> None:
    upright = Image.fromarray(_street_sign())
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    settings = DjpegSettings(guide="text")
    straight = compress(load(tmp_path / "a.png"), settings).importance
    turned = compress(load(tmp_path / "b.png"), settings).importance
    np.testing.assert_allclose(np.rot90(straight), turned, atol=0.02)


def test_files_of_another_kind_are_refused(tmp_path: Path) -> None:
    from vizcomp.weights import table

    (tmp_path / "broken.onnx").write_bytes(
        table.bundled_path("text_regions.onnx").read_bytes()[:5000]
    )
    for path, words in (
        (tmp_path / "none.onnx", "No such file"),
        (tmp_path / "broken.onnx", "is not an ONNX file that can be read"),
        (
            table.bundled_path("compact_depth.onnx"),
            "is an ONNX file, but no network for text regions",
        ),
    ):
        with pytest.raises(ModelError, match=words):
            TextRegions(path)


def test_an_exported_network_gives_what_torch_gives(tmp_path: Path) -> None:
    import torch

    from vizcomp.nets.text_regions import TextRegionsNet
    from vizcomp.training.export import export_text_regions

    torch.manual_seed(0)
    network = TextRegionsNet().eval()
    export_text_regions(network, tmp_path / "new.onnx", metadata={"licence": "MIT"})
    image = np.random.default_rng(3).integers(0, 256, (48, 64, 3)).astype(np.uint8)
    with torch.no_grad():
        x = torch.from_numpy(image.transpose(2, 0, 1)[None].astype(np.float32) / 255)
        expected = network((x - 0.45) / 0.25)[0].numpy()
    # the compiled loops round activations and weights
    np.testing.assert_allclose(TextRegions(tmp_path / "new.onnx")(image), expected, atol=2e-3)
