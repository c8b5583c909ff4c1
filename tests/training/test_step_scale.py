"""The factor on steps under a guide, such that a quality keeps what plain JPEG of it keeps."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

import vizcomp
from vizcomp.batch.judges import uncalibrated_guides
from vizcomp.djpeg.compress import Prepared, learned_guide
from vizcomp.djpeg.learned import LearnedGuide
from vizcomp.djpeg.settings import DjpegSettings, steps_of
from vizcomp.errors import ModelError
from vizcomp.jpeg.read import read_jpeg
from vizcomp.nets.text_regions import TextRegionsNet
from vizcomp.photos.photo import load_bytes
from vizcomp.training.export import export_guide
from vizcomp.training.step_scale import (
    FEWEST,
    OWN,
    PLAIN,
    STEPS,
    StepScale,
    finest,
    guided,
    measured,
    moves,
    quality_of,
    softer,
    step_scale,
)
from vizcomp.vision.answers import Answer, Embedding, Kind


class Details:
    """A system that sees edges, four pixels wide."""

    name, fingerprint, classes, native = "details", "1", (), 0
    kind: Kind = "embedding"

    def answers(self, images: list[np.ndarray]) -> list[Answer]:
        found: list[Answer] = []
        for image in images:
            grey = np.asarray(image, np.float32).reshape(24, 4, 32, 12).mean((1, 3))
            found.append(Embedding((grey[1:, 1:] - grey[:-1, :-1]).ravel()))
        return found


def photo(seed: int) -> np.ndarray:
    """Waves of several lengths, and noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:96, :128].astype(np.float32)
    waves = sum(
        30 * np.sin(x * rng.uniform(0.1, 1.5) + y * rng.uniform(0.1, 1.5)) for _ in range(4)
    )
    pixels = 128 + waves[..., None] + rng.normal(0, 8, (96, 128, 3))
    return np.clip(pixels, 0, 255).astype(np.uint8)


PHOTOS = [photo(seed) for seed in range(FEWEST)]


def rows(factor: float, noise: float, count: int) -> tuple[np.ndarray, np.ndarray]:
    """How far answers move under a guide that needs steps `factor` times as large."""
    rng = np.random.default_rng(0)
    level = rng.uniform(0.05, 0.15, (count, 1))
    own = level + 0.1 * (np.log(STEPS) - np.log(factor))
    plain = level + 0.1 * np.log([steps_of(quality) for quality in PLAIN])
    return (
        own + rng.normal(0, noise, (count, len(STEPS))),
        plain + rng.normal(0, noise, (count, len(PLAIN))),
    )


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.2])
def test_the_factor_is_found_in_noise(factor: float) -> None:
    found = step_scale(*rows(factor, 0.02, 20))
    assert found.error is not None
    assert found.value == pytest.approx(factor, abs=0.12)
    assert found.error < 0.1
    assert found == step_scale(*rows(factor, 0.02, 20))  # the draws have a seed
    assert not found.why
    assert "20 photos" in found.words()


def test_it_says_so_where_it_cannot_be_measured() -> None:
    few = step_scale(*(table[: FEWEST - 1] for table in rows(0.7, 0.0, 20)))
    flat = step_scale(*(0 * table + 0.1 for table in rows(0.7, 0.0, 20)))
    noisy = step_scale(*rows(0.7, 0.4, 60))
    assert "something to keep" in few.why
    assert "hardly move" in flat.why
    assert "60 photos tell it" in noisy.why or "hardly move" in noisy.why
    for one in (few, flat, noisy):
        assert (one.value, one.error) == (1.0, None)
        assert one.words().startswith("1, not measured")
    sure = StepScale(value=0.9, error=0.02, photos=9)
    assert finest([few, sure, StepScale(value=0.8, error=0.1, photos=9)]).value == 0.8
    assert finest([few, flat]) == few


def test_qualities_have_the_steps_that_they_stand_for() -> None:
    for steps, quality in zip(STEPS, PLAIN, strict=True):
        assert steps_of(quality_of(steps)) == pytest.approx(steps)
        assert steps_of(quality) == pytest.approx(steps, rel=0.03)


def hardly(image: np.ndarray) -> np.ndarray:
    return np.full((1, 1), 0.3, np.float32)


def test_with_the_factor_a_quality_keeps_what_plain_jpeg_keeps() -> None:
    """Of a guide that lets much go: without the factor it keeps much less."""
    system = Details()
    (scale,) = measured([[one] for one in PHOTOS], hardly, [system])
    assert scale.error is not None
    assert 0.6 < scale.value < 0.95
    settings = DjpegSettings(guide=OWN)
    far: dict[float, list[float]] = {1.0: [], scale.value: []}
    plain = []
    for image in PHOTOS:
        for factor, found in far.items():
            made = guided(image, hardly(image), settings)
            quality = quality_of(factor)
            row = moves(image, lambda _, made=made, at=quality: made.at(at), [system])[0]
            assert row is not None
            found.append(float(row[0]))
        plain.append(float(row[len(STEPS) + PLAIN.index(50)]))
    before, after = (abs(np.mean(found) - np.mean(plain)) for found in far.values())
    assert after < 0.3 * before


def test_views_of_a_photo_count_as_one() -> None:
    system = Details()
    (twice,) = measured([[one, one] for one in PHOTOS], hardly, [system])
    assert twice == measured([[one] for one in PHOTOS], hardly, [system])[0]
    assert twice.photos == len(PHOTOS)


def test_only_detectors_are_asked_for_weak_boxes() -> None:
    system = Details()
    assert softer("details", system) is system
    system.kind = "boxes"  # of a name that has no such option
    assert softer("text", system) is system


def guide_file(path: Path, scale: float | None, why: str = "") -> str:
    export_guide(
        TextRegionsNet(),
        path,
        levels=(50.0, 60.0),  # nothing matters
        systems="some",
        scale=scale,
        uncalibrated=why,
    )
    return str(path)


def reworded(path: str, key: str, value: str | None) -> None:
    """The file with another entry, or without it."""
    model = onnx.load(path)
    kept = [entry for entry in model.metadata_props if entry.key != key]
    del model.metadata_props[:]
    model.metadata_props.extend(kept)
    if value is not None:
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.save(model, path)


def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_djpeg_obeys_the_factor_of_a_file(tmp_path: Path) -> None:
    source = load_bytes(png(PHOTOS[0]), "a.png")

    def steps(path: str, **more: object) -> float:
        settings = DjpegSettings(guide=path, **more)  # type: ignore[arg-type]
        return float(read_jpeg(Prepared(source, settings).at(50)).tables[0].mean())

    one, fine = guide_file(tmp_path / "1.onnx", 1.0), guide_file(tmp_path / "2.onnx", 0.7)
    assert steps(fine) / steps(one) == pytest.approx(0.7, rel=0.04)
    assert steps(fine, strength=0.125) / steps(one) == pytest.approx(0.7**0.5, rel=0.04)
    assert steps(fine, table="photo") == steps(one, table="photo")  # for the eye
    before = steps(one)
    guide_file(tmp_path / "1.onnx", 0.7)  # trained again, in the same process
    assert steps(one) == steps(fine) < before
    assert learned_guide(fine).reading.endswith("steps 0.7 times as large")


def test_a_file_without_a_factor_says_so(tmp_path: Path) -> None:
    path = guide_file(tmp_path / "a.onnx", None, "3 photos\nare few")
    found = LearnedGuide(Path(path))
    assert (found.scale, found.uncalibrated) == (1.0, "3 photos\\nare few")
    assert "not known" in found.reading
    (said,) = uncalibrated_guides(DjpegSettings(guide=path))
    assert "are few" in said
    assert said in vizcomp.compress(PHOTOS[0], guide=path).notices
    for quiet in (
        DjpegSettings(guide=path, table="photo"),
        DjpegSettings(guide=path, strength=0),
        DjpegSettings(guide=guide_file(tmp_path / "b.onnx", 0.9)),
    ):
        assert uncalibrated_guides(quiet) == ()
    by_kind = DjpegSettings(guide="uniform", without_lettering=DjpegSettings(guide=path))
    assert uncalibrated_guides(by_kind) == (said,)
    reworded(path, "uncalibrated", None)  # of a version before
    assert "before guides were calibrated" in LearnedGuide(Path(path)).uncalibrated


@pytest.mark.parametrize("said", ["nan", "inf", "0", "-1", "9", "", "one", "1" * 400])
def test_a_factor_that_is_none_is_refused(tmp_path: Path, said: str) -> None:
    path = guide_file(tmp_path / "a.onnx", 1.0)
    reworded(path, "scale", said)
    with pytest.raises(ModelError, match="no factor on steps") as info:
        LearnedGuide(Path(path))
    assert len(info.value.message) < 200 + len(path)


def test_the_report_says_that_a_factor_is_not_known(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from vizcomp.cli import app

    path = guide_file(tmp_path / "a.onnx", None, "few photos")
    (tmp_path / "p.png").write_bytes(png(PHOTOS[0]))
    words = ["djpeg", str(tmp_path / "p.png"), "-o", str(tmp_path / "out"), "--guide", path]
    done = CliRunner().invoke(app, [*words, "-j", "1"])
    assert done.exit_code == 0, done.output
    (notice,) = json.loads((tmp_path / "out" / "report.json").read_text())["notices"]
    assert "few photos" in notice
    assert done.output.count("few photos") >= 2  # how it is read, and the notice
