"""Fewer pixels, chroma, scans, and files without loss: `--max-side`, `--scale`, `--subsampling`,
`--scans`, `--lossless`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jpeg_kit import assert_same, exif, photo
from kit import command, jpeg_bytes, size_of
from PIL import Image

from vizcomp.batch import engines, judges
from vizcomp.batch.sides import LEAST_SIDE, sides_of
from vizcomp.djpeg.compress import compress
from vizcomp.djpeg.lossless import rewritten
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import SettingsError
from vizcomp.jpeg.read import read_jpeg
from vizcomp.jpeg.segments import chroma_sampling
from vizcomp.photos.photo import load_bytes, size_in
from vizcomp.photos.resize import resized, wanted_size
from vizcomp.vision.answers import Answer, Boxes, Classes, Embedding, Keypoints, Masks, Text
from vizcomp.vision.scale import rescaled
from vizcomp.vision.system import corners_to_quads

Run = Callable[..., dict[str, Any]]


class Square:
    """A detector of one bright square on a dark picture."""

    name, kind, fingerprint, classes, native = "square", "boxes", "1", (), 0

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        found: list[Answer] = []
        for image in images:
            rows, columns = np.nonzero(image.mean(2) > 128)
            corners = (
                [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1] if len(rows) else []
            )
            found.append(Boxes(corners_to_quads(np.array(corners, float)), (), image.shape[1::-1]))
        return found

    def importance(self, image: np.ndarray) -> np.ndarray:
        return np.ones((1, 1), np.float32)


class Wide(Square):
    """Wants 300 pixels of width, whatever they show."""

    name, kind = "wide", "classes"

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        return [
            Classes(np.array([image.shape[1] < 300, image.shape[1] >= 300], np.float32))
            for image in images
        ]


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> Iterator[Run]:
    """Runs `vizcomp djpeg` in this process: gives its report, with what it said as "said"."""
    systems = {"square": Square, "wide": Wide}
    monkeypatch.setattr(judges, "open_system", lambda name, **_: systems[name]())
    # a worker process would not know these systems
    monkeypatch.setattr(engines, "TASKS_TO_ISOLATE", sys.maxsize)
    monkeypatch.chdir(tmp_path)
    judges.opened_system.cache_clear()

    def called(*arguments: object, code: int = 0) -> dict[str, Any]:
        capfd.readouterr()
        ended = command("djpeg", "photos", "-o", "out", "--guide", "uniform", "--json", *arguments)
        out, err = capfd.readouterr()
        assert ended == code, err
        assert "Traceback" not in err
        return {**(json.loads(out) if out else {}), "said": err}

    yield called
    judges.opened_system.cache_clear()


@pytest.fixture
def square() -> np.ndarray:
    """uint8 (480, 640, 3): dark, with a bright square of 160 pixels."""
    pixels = (photo(640, 480) // 4).astype(np.uint8)
    pixels[120:280, 320:480] = 240
    return pixels


def save(name: str, data: bytes) -> None:
    Path("photos").mkdir(exist_ok=True)
    (Path("photos") / name).write_bytes(data)


# --- sizes
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "options", "wanted"),
    [
        ((400, 600), {"max_side": 300}, (200, 300)),
        ((600, 400), {"max_side": 300}, (300, 200)),
        ((400, 600), {"max_side": 600}, (400, 600)),
        ((400, 600), {"max_side": 10**12}, (400, 600)),
        ((400, 600), {"scale": 0.5}, (200, 300)),
        ((400, 600), {"scale": 1.0}, (400, 600)),
        ((1, 1), {"max_side": 1}, (1, 1)),
        ((1, 1), {"scale": 0.001}, (1, 1)),
        ((2, 3000), {"max_side": 10}, (1, 10)),
    ],
)
def test_the_size_keeps_its_aspect_and_never_grows(size: Any, options: Any, wanted: Any) -> None:
    assert wanted_size(*size, **options) == wanted


@pytest.mark.parametrize(
    "options",
    [
        *({"max_side": 0}, {"max_side": -1}, {"max_side": "no"}, {"max_side": 1.5}),
        *({"scale": 0}, {"scale": -1}, {"scale": 1.5}, {"scale": float("nan")}),
        *({"max_side": 100, "scale": 0.5}, {"max_side": "auto", "target_size": 1000}),
        *({"subsampling": "422"}, {"scans": "slow"}),
        *(
            {"lossless": True, "quality": 30},
            {"lossless": True, "max_side": 100},
            {"lossless": True, "subsampling": "444"},
        ),
    ],
)
def test_settings_out_of_range_or_at_odds_are_refused(options: Any) -> None:
    with pytest.raises(SettingsError):
        DjpegSettings(**options)


def test_settings_are_what_they_were() -> None:
    for settings in (
        DjpegSettings(max_side=640, scans="baseline"),
        DjpegSettings(scale=0.5),
        DjpegSettings(lossless=True),
    ):
        assert DjpegSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


def test_a_photo_that_is_small_enough_stays_in_coefficients(cat: np.ndarray) -> None:
    data = jpeg_bytes(cat)
    for settings in (DjpegSettings(max_side=451), DjpegSettings(scale=1.0)):
        alike = compress(load_bytes(data, "x"), DjpegSettings(guide="uniform")).data
        assert (
            compress(
                load_bytes(data, "x"), DjpegSettings(guide="uniform", **_only_size(settings))
            ).data
            == alike
        )


def _only_size(settings: DjpegSettings) -> dict[str, Any]:
    return {"max_side": settings.max_side, "scale": settings.scale}


def test_resizing_commutes_with_turning(cat: np.ndarray) -> None:
    """Lanczos' filter is the same in both directions, so the stored frame may be resized in place
    of the displayed one."""
    from vizcomp.photos.frame import upright

    source = load_bytes(jpeg_bytes(cat, exif=exif(6)), "x")
    small = resized(source, *wanted_size(*source.pixels.shape[:2], max_side=200))
    assert small.orientation == 6
    shown = upright(source.pixels, 6)
    straight = resized(load_bytes(jpeg_bytes(np.ascontiguousarray(shown)), "x"), 200, 133).pixels
    image = Image.fromarray(np.ascontiguousarray(shown)).resize(
        (133, 200), Image.Resampling.LANCZOS
    )
    assert upright(small.pixels, 6).shape == straight.shape
    assert np.abs(upright(small.pixels, 6).astype(int) - np.asarray(image)).max() <= 2


def test_results_have_the_size_that_is_asked_and_the_report_says_it(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    report = run("--max-side", 200)
    assert report["totals"]["failed"] == 0
    for record in report["files"]:
        assert max(size_of(record["output"])) == 200
        assert (record["output_width"], record["output_height"]) == size_of(record["output"])
        assert max(record["width"], record["height"]) in (451, 600)
        assert record["psnr"] > 20
        assert record["plain_jpeg_bytes"] < 30_000  # of as many pixels
    assert "451×300 → 200×133" in (tmp_path / "out" / "report.html").read_text("utf-8")
    assert "exists" in run("--max-side", 200)["files"][0]["error"]
    again = run("--max-side", 200, "--resume")
    assert [record["output_width"] for record in again["files"]] == [
        record["output_width"] for record in report["files"]
    ]
    other = run("--max-side", 100, "--resume")  # another setting is another output
    assert {max(size_of(record["output"])) for record in other["files"]} == {100}


@pytest.mark.parametrize("side", [1, 7, 100_000])
def test_thin_and_tiny_photos(run: Run, side: int) -> None:
    run_sizes = {"dot.png": (1, 1), "thin.png": (900, 1), "tall.png": (3, 700)}
    for name, (width, height) in run_sizes.items():
        out = io.BytesIO()
        Image.fromarray(photo(width, height)).save(out, "PNG")
        save(name, out.getvalue())
    for record in run("--max-side", side)["files"]:
        width, height = run_sizes[Path(record["input"]).name]
        shown = size_of(record["output"])
        if record["status"] == "ok":
            assert max(shown) == min(side, max(width, height))
            assert min(shown) >= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-side", 0), "--max-side 0"),
        (("--max-side", "-3"), "--max-side -3"),
        (("--max-side", "12.5"), "--max-side 12.5"),
        (("--max-side", "9" * 5000), "is no side"),
        (("--scale", "1.5"), "never enlarged"),
        (("--scale", "nan"), "out of range"),
        (("--scale", "half"), "is not a share"),
        (("--max-side", 100, "--scale", "50%"), "contradict"),
        (("--max-side", "auto"), "needs --verify"),
        (("--lossless", "--max-side", 100), "contradict"),
        (("--subsampling", "422"), "use keep, 444 or 420"),
        (("--scans", "fast"), "use progressive or baseline"),
    ],
)
def test_a_wrong_option_is_said_in_two_lines(
    run: Run, square: np.ndarray, options: Any, words: str
) -> None:
    save("a.jpg", jpeg_bytes(square))
    said = run(*options, code=2)["said"]
    assert words in said
    assert said.count("\n") == 2
    assert not [*Path("out").rglob("*.*")]


@pytest.mark.parametrize(
    "option",
    ["--quality=50", "--guide=depth", "--verify=square", "--target-size=9kB", "--subsampling=keep"],
)
def test_lossless_refuses_what_it_would_ignore(
    folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], option: str
) -> None:
    assert command("djpeg", folder, "-o", tmp_path / "out", "--lossless", option) == 2
    assert "--lossless" in capfd.readouterr().err


def test_a_tiny_source_is_written_larger_only_where_pixels_are_asked(run: Run) -> None:
    save("a.jpg", jpeg_bytes(photo(400, 300), quality=1))
    (record,) = run("--max-side", 380, "-q", 95)["files"]
    assert record["status"] == "ok"
    assert record["output_bytes"] > record["source_bytes"]
    assert any("larger than its source" in notice for notice in record["notices"])
    (record,) = run("--max-side", 380, "-q", 95, "--min-saving", "5%", "--overwrite")["files"]
    assert record["status"] == "kept"
    assert (record["output_width"], record["output_height"]) == (400, 300)


def test_masks_fit_at_any_size(run: Run, square: np.ndarray) -> None:
    save("a.jpg", jpeg_bytes(square))
    Path("masks").mkdir()
    mask = np.zeros((48, 64), np.uint8)
    mask[12:28, 32:48] = 255
    Image.fromarray(mask).save("masks/a.png")
    (record,) = run("--max-side", 320, "--guide", "mask", "--masks", "masks", "--strength", 1)[
        "files"
    ]
    kept = np.asarray(Image.open(record["output"]).convert("L"))[60:140, 160:240]
    assert kept.mean() > 230


# --- systems that give places
# ----------------------------------------------------------------------------------------


def test_answers_in_the_scale_of_the_source() -> None:
    size, wanted = (100, 200), (300, 800)
    boxes = rescaled(
        Boxes(corners_to_quads(np.array([[10.0, 20, 30, 40]])), ("a",), (200, 100)), size, wanted
    )
    assert isinstance(boxes, Boxes)
    np.testing.assert_allclose(boxes.quads[0], [[40, 60], [120, 60], [120, 120], [40, 120]])
    assert (boxes.size, boxes.labels) == ((800, 300), ("a",))
    both = rescaled(Boxes(boxes.quads, below=Boxes(boxes.quads)), size, wanted)
    assert isinstance(both, Boxes)
    assert both.below is not None
    np.testing.assert_allclose(both.below.quads, both.quads)
    text = rescaled(Text(("word",), boxes.quads, (200, 100)), size, wanted)
    assert isinstance(text, Text)
    np.testing.assert_allclose(text.quads, boxes.quads * [4, 3])
    pose = rescaled(
        Keypoints(np.ones((1, 2, 2)), np.ones((1, 2), np.float32), np.ones((1, 4))), size, wanted
    )
    assert isinstance(pose, Keypoints)
    np.testing.assert_allclose(pose.points, [[[4, 3], [4, 3]]])
    np.testing.assert_allclose(pose.corners, [[4, 3, 4, 3]])
    labels = np.arange(20_000, dtype=np.int32).reshape(size)
    mask = rescaled(Masks(labels), size, wanted)
    assert isinstance(mask, Masks)
    np.testing.assert_array_equal(mask.labels[1::3, 2::4], labels)
    other = Embedding(np.ones(3, np.float32))
    assert rescaled(other, size, wanted) is other


def test_boxes_are_compared_in_the_scale_of_the_source(run: Run, square: np.ndarray) -> None:
    save("a.jpg", jpeg_bytes(square))
    (record,) = run("--max-side", 160, "--verify", "square", "--watch-with", "wide")["files"]
    assert record["verified"]
    assert record["verify_score"] == {"square": 1.0}
    assert record["watch_same"] == {"wide": False}
    assert size_of(record["output"]) == (160, 120)


def test_auto_takes_the_fewest_pixels_that_hold(run: Run, square: np.ndarray) -> None:
    save("a.jpg", jpeg_bytes(square))
    (record,) = run("--max-side", "auto", "--verify", "wide")["files"]
    assert record["verified"]
    assert record["output_width"] == min(side for side in sides_of(640, 480) if side >= 300) == 320
    assert record["verify_trials"] >= 3
    (both,) = run("--max-side", "auto", "--verify", "wide", "--verify", "square", "--overwrite")[
        "files"
    ]
    assert both["verified"]
    assert both["output_width"] == 320
    (alone,) = run("--verify", "wide", "--overwrite")["files"]
    assert alone["output_width"] == 640
    assert record["output_bytes"] < alone["output_bytes"]


@pytest.mark.parametrize("name", ["webp", "avif", "auto"])
def test_auto_searches_sides_in_every_format(run: Run, square: np.ndarray, name: str) -> None:
    save("a.jpg", jpeg_bytes(square))
    (record,) = run("--format", name, "--max-side", "auto", "--verify", "wide")["files"]
    assert record["verified"]
    assert record["output_width"] == 320
    assert size_of(record["output"]) == (320, 240)
    assert (
        record["format"] == name if name != "auto" else record["format"] in ("webp", "avif", "jpeg")
    )
    (jpeg,) = run("--max-side", "auto", "--verify", "wide", "--overwrite")["files"]
    assert name != "auto" or record["output_bytes"] <= jpeg["output_bytes"]


def test_sides_go_from_few_pixels_to_all() -> None:
    assert sides_of(2048, 1536) == (128, 181, 256, 362, 512, 724, 1024, 1448, 2048)
    assert sides_of(LEAST_SIDE - 1, 90) == (LEAST_SIDE - 1,)
    assert sides_of(1, 1) == (1,)
    assert sides_of(20000, 400)[0] == 1768  # a panorama keeps 32 rows
    assert sides_of(300, 1) == (300,)


def test_auto_with_nothing_to_verify_keeps_all_pixels(run: Run) -> None:
    save("a.jpg", jpeg_bytes(photo(300, 200) // 4))
    (record,) = run("--max-side", "auto", "--verify", "square")["files"]
    assert record["verify_state"] == "nothing"
    assert record["output_width"] == 300


# --- chroma and scans
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["4:2:0", "4:2:2", "4:4:4"])
@pytest.mark.parametrize("scans", ["progressive", "baseline"])
def test_chroma_is_kept_halved_or_full(cat: np.ndarray, source: str, scans: Any) -> None:
    data = jpeg_bytes(cat, subsampling=source, quality=90)
    assert chroma_sampling(data) == source
    wanted: dict[Any, str] = {"keep": source, "444": "4:4:4", "420": "4:2:0"}
    for subsampling, sampling in wanted.items():
        settings = {"guide": "uniform", "subsampling": subsampling, "scans": scans}
        made = compress(load_bytes(data, "x"), DjpegSettings(**settings)).data
        assert chroma_sampling(made) == sampling
        assert read_jpeg(made).progressive == (scans == "progressive")
        exact = compress(
            load_bytes(data, "x"), DjpegSettings(**settings, quality=100, strength=0, table="photo")
        ).data
        before, after = read_jpeg(data), read_jpeg(exact)
        if sampling == source:
            assert_same(before, after)
        first, second = before.components[0], after.components[0]
        rows, columns = first.real_rows, first.real_cols
        np.testing.assert_array_equal(
            first.coefficients[:rows, :columns], second.coefficients[:rows, :columns]
        )
        shown = np.asarray(Image.open(io.BytesIO(exact)).convert("RGB")).astype(int)
        if subsampling == "444":  # as decoders show the source
            assert np.abs(shown - np.asarray(Image.open(io.BytesIO(data)))).mean() < 0.2


def test_pixels_keep_their_chroma(cat: np.ndarray) -> None:
    out = io.BytesIO()
    Image.fromarray(cat).save(out, "PNG")
    png = load_bytes(out.getvalue(), "x")
    half = load_bytes(jpeg_bytes(cat, subsampling="4:2:0"), "x")
    for source, sampling in ((png, "4:4:4"), (half, "4:2:0")):
        made = compress(
            source, DjpegSettings(guide="uniform", subsampling="keep", max_side=200)
        ).data
        assert chroma_sampling(made) == sampling
        assert size_in(made) == (200, 133)
    assert chroma_sampling(compress(png, DjpegSettings(guide="uniform")).data) == "4:2:0"


def test_a_kept_source_has_the_scans_that_are_asked(run: Run, cat: np.ndarray) -> None:
    source = rewritten(
        jpeg_bytes(cat, quality=5), DjpegSettings(lossless=True), max_pixels=10**6
    ).data
    save("a.jpg", source)
    (record,) = run("--scans", "baseline", "-q", 100)["files"]
    assert record["status"] == "kept"
    made = Path(record["output"]).read_bytes()
    assert not read_jpeg(made).progressive
    assert_same(read_jpeg(made), read_jpeg(source))
    (record,) = run("--subsampling", "444", "-q", 100, "--overwrite")["files"]
    assert "its chroma is as the source has it: 4:2:0" in record["notices"]


# --- without loss
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scans", ["progressive", "baseline"])
@pytest.mark.parametrize("metadata", ["none", "essential", "all"])
def test_lossless_changes_no_coefficient(cat: np.ndarray, scans: Any, metadata: Any) -> None:
    profile = b"not a real profile, but carried"
    for pixels, options in (
        (cat, {"subsampling": "4:4:4"}),
        (cat, {"progressive": True}),
        (cat[..., 1], {}),
    ):
        data = jpeg_bytes(
            pixels, quality=80, exif=exif(6), icc_profile=profile, comment=b"a comment", **options
        )
        made = rewritten(
            data, DjpegSettings(lossless=True, scans=scans, metadata=metadata), max_pixels=10**6
        )
        before, after = read_jpeg(data), read_jpeg(made.data)
        assert_same(before, after)
        assert after.progressive == (scans == "progressive")
        assert len(made.data) < len(data) or (scans == "baseline" and before.progressive)
        shown = Image.open(io.BytesIO(made.data))
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(Image.open(io.BytesIO(data))))
        assert shown.getexif()[0x0112] == 6  # without it the picture would lie on its side
        assert ("icc_profile" in shown.info) == (metadata != "none")
        assert ("comment" in shown.info) == (metadata == "all")
        assert bool(made.notices) == (metadata == "none")


def test_lossless_jpeg_xl_gives_back_the_jpeg(run: Run, cat: np.ndarray) -> None:
    pillow_jxl = pytest.importorskip("pillow_jxl")
    save("a.jpg", jpeg_bytes(cat, exif=exif(6)))
    inks = io.BytesIO()
    Image.fromarray(cat).convert("CMYK").save(inks, "JPEG", quality=80)
    save("inks.jpg", inks.getvalue())

    def lossless(*more: str) -> Any:
        assert command("djpeg", "photos", "-o", "out", "--lossless", *more) == 0
        return json.loads(Path("out/report.json").read_text("utf-8"))["files"]

    jpegs = lossless()
    expected = Path(jpegs[0]["output"]).read_bytes()
    record, other = lossless("--format", "jxl", "--overwrite")
    assert (record["status"], record["format"]) == ("ok", "jxl")
    assert bytes(pillow_jxl.Decoder()(Path(record["output"]).read_bytes())[2]) == expected
    assert record["output_bytes"] < jpegs[0]["output_bytes"]
    assert record["psnr"] is None
    with Image.open(record["output"]) as image:
        assert image.getexif()[0x0112] == 6
    assert (other["status"], Path(other["output"]).name) == ("kept", "inks.jpg")
    assert any("JPEG XL cannot hold" in notice for notice in other["notices"])


def test_lossless_of_inks_and_of_what_is_no_jpeg(run: Run, cat: np.ndarray) -> None:
    out = io.BytesIO()
    Image.fromarray(cat).convert("CMYK").save(out, "JPEG", quality=80)
    save("inks.jpg", out.getvalue())
    png = io.BytesIO()
    Image.fromarray(cat).save(png, "PNG")
    save("a.png", png.getvalue())
    assert command("djpeg", "photos", "-o", "out", "--lossless") == 0
    assert (Path("out") / "a.png").read_bytes() == png.getvalue()
    assert_same(read_jpeg((Path("out") / "inks.jpg").read_bytes()), read_jpeg(out.getvalue()))
    report = json.loads(Path("out/report.json").read_text("utf-8"))
    by_name = {Path(record["input"]).name: record for record in report["files"]}
    assert by_name["a.png"]["status"] == "kept"
    assert "no JPEG" in by_name["a.png"]["notices"][0]
    assert by_name["inks.jpg"]["status"] == "ok"
    assert by_name["inks.jpg"]["psnr"] is None
    assert by_name["inks.jpg"]["ms_ssim"] == 1


def test_lossless_never_grows_and_says_what_it_cannot_do(run: Run, cat: np.ndarray) -> None:
    small = jpeg_bytes(cat, quality=80, exif=exif(1))
    tagged = io.BytesIO()
    Image.fromarray(cat).save(tagged, "PNG", exif=exif(6)[6:])
    best = rewritten(small, DjpegSettings(lossless=True), max_pixels=10**6).data
    save("best.jpg", best)
    save("tagged.png", tagged.getvalue())
    save("cut.jpg", small[: len(small) // 2])
    assert command("djpeg", "photos", "-o", "out", "--lossless", "--metadata", "none") == 1
    report = json.loads(Path("out/report.json").read_text("utf-8"))
    by_name = {Path(record["input"]).name: record for record in report["files"]}
    assert by_name["best.jpg"]["status"] == "kept"
    assert by_name["best.jpg"]["output_bytes"] <= len(best)
    assert by_name["tagged.png"]["status"] == "failed"
    assert "`metadata` essential" in by_name["tagged.png"]["error"]
    assert by_name["cut.jpg"]["status"] == "failed"


# --- from Python
# --------------------------------------------------------------------------------------------------


def test_compress_makes_arrays_smaller_and_refuses_what_is_for_files(cat: np.ndarray) -> None:
    import vizcomp

    made = vizcomp.compress(cat, guide="uniform", max_side=200)
    assert (made.width, made.height) == made.open().size == (200, 133)
    same = vizcomp.compress(jpeg_bytes(cat), lossless=True)
    np.testing.assert_array_equal(
        np.asarray(same.open()), np.asarray(Image.open(io.BytesIO(jpeg_bytes(cat))))
    )
    with pytest.raises(vizcomp.VizcompError, match="no JPEG"):
        vizcomp.compress(cat, lossless=True)
    with pytest.raises(SettingsError, match="needs `verify`"):
        vizcomp.compress(cat, max_side="auto")
    for option in ({"max_side": 100}, {"scale": 0.5}, {"lossless": True}):
        with pytest.raises(SettingsError):
            vizcomp.transforms.Djpeg(**option)
