"""`vizcomp.compress` and its kin: whatever holds an image, in the words of Python."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vizcomp
from vizcomp.api import single
from vizcomp.batch import judges
from vizcomp.cli import app
from vizcomp.errors import FormatError, InputError, OutputError, SettingsError
from vizcomp.vision.answers import Classes


def picture(height: int = 72, width: int = 96, seed: int = 0) -> np.ndarray:
    """Something like a photo: smooth, with an edge and some noise. uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    base = np.stack([128 + 90 * np.sin(x / (9 + c)) * np.cos(y / (7 + c)) for c in range(3)], -1)
    base[height // 3 :, width // 2 :] *= 0.5
    return np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)


def encoded(pixels: np.ndarray, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


PLAIN = {"guide": "uniform", "table": "photo"}


def test_all_that_holds_an_image_gives_the_same_file(tmp_path: Path) -> None:
    data = encoded(picture())
    path = tmp_path / "a.png"
    path.write_bytes(data)
    with path.open("rb") as file:
        results = [
            vizcomp.compress(each, quality=40)
            for each in (
                path,
                str(path),
                data,
                bytearray(data),
                memoryview(data),
                file,
                io.BytesIO(data),
                Image.open(path),
            )
        ]
    results += [
        vizcomp.compress(picture(), quality=40),
        vizcomp.compress(vizcomp.load(path), quality=40),
    ]
    assert len({result.data for result in results}) == 1
    for result in results:
        assert (result.width, result.height, result.format, result.quality) == (96, 72, "jpeg", 40)
        assert result.output_bytes == len(result) == len(result.data)
        assert bytes(result) == result.data
        assert np.asarray(result.open()).shape == (72, 96, 3)
    assert [result.source_bytes for result in results[:8]] == [len(data)] * 7 + [72 * 96 * 3]


def test_the_same_file_as_the_command(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.jpg", quality=95)
    found = CliRunner().invoke(
        app, ["djpeg", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "-q", "35", "--quiet"]
    )
    assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
    written = (tmp_path / "out" / "a.jpg").read_bytes()
    assert vizcomp.compress(tmp_path / "in" / "a.jpg", quality=35).data == written
    report = vizcomp.compress_files(tmp_path / "in", tmp_path / "again", quality=35)
    assert (tmp_path / "again" / "a.jpg").read_bytes() == written
    assert (tmp_path / "again" / "report.html").exists()
    assert [record.status for record in report.files] == ["ok"]
    assert report.totals.output_bytes == len(written)


@pytest.mark.parametrize("mode", ["L", "RGBA", "LA", "P", "1", "CMYK", "I;16", "F", "HSV"])
def test_images_of_every_mode(mode: str) -> None:
    image = Image.fromarray(picture())
    if mode == "I;16":
        image = Image.fromarray(picture()[..., 0].astype(np.uint16) * 257)
    elif mode == "LA":
        image = image.convert("L").convert("LA")
    else:
        image = image.convert(mode)
    result = vizcomp.compress(image, **PLAIN)
    grey = mode in ("L", "LA", "1", "I;16", "F")
    assert result.open().mode == ("L" if grey else "RGB")
    shown = np.asarray(result.open().convert("L")).astype(float)
    truth = picture()[..., 0] if mode == "I;16" else np.asarray(image.convert("L"))
    assert np.abs(shown - truth).mean() < (40 if mode == "1" else 12)


def test_what_an_image_of_pil_carries() -> None:
    image = Image.fromarray(picture())
    exif = image.getexif()
    exif[0x0112] = 6
    exif[0x0110] = "a camera"
    image.info["exif"] = exif.tobytes()
    turned = Image.open(io.BytesIO(encoded(picture(), "JPEG", exif=exif.tobytes())))
    for each in (image, turned):
        result = vizcomp.compress(each, **PLAIN)
        assert result.open().getexif().get(0x0112) == 6
        assert 0x0110 not in result.open().getexif()
        assert (
            vizcomp.compress(each, metadata="all", **PLAIN).open().getexif().get(0x0110)
            == "a camera"
        )


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((4, 4, 3), np.float32), "float32, not uint8"),
        (np.zeros((4, 4), np.uint16), "uint16, not uint8"),
        (np.zeros((3, 5, 6), np.uint8), "(3, 5, 6)"),
        (np.zeros((0, 4), np.uint8), "(0, 4)"),
        (np.zeros((2, 4, 4, 3), np.uint8), "(2, 4, 4, 3)"),
        (b"", "is empty"),
        (io.BytesIO(b""), "is empty"),
        (io.StringIO("text"), "no bytes"),
        (7, "int is no image"),
        (None, "NoneType is no image"),
    ],
)
def test_what_is_no_image(array: Any, words: str) -> None:
    with pytest.raises(InputError) as caught:
        vizcomp.compress(array, **PLAIN)
    assert words in caught.value.message
    assert caught.value.hint


def test_broken_bytes_and_files_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(FormatError):
        vizcomp.compress(encoded(picture())[:500], **PLAIN)
    with pytest.raises(InputError, match="does not exist"):
        vizcomp.compress(tmp_path / "none.jpg")


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"qualty": 3}, TypeError, "did you mean 'quality'"),
        ({"jobs": 3}, TypeError, "it is of compress_files()"),
        ({"overwrite": True}, TypeError, "it is of compress_files()"),
        ({"quality": 500}, SettingsError, "`quality` 500 is out of range"),
        ({"quality": "high"}, SettingsError, "is no number"),
        ({"mask": np.ones((3, 3))}, SettingsError, "`mask` has no effect"),
        ({"depth": np.ones((3, 3)), "guide": "text"}, SettingsError, "`depth` has no effect"),
        (
            {"depth": np.random.default_rng(0).random((3, 3)), "guide": "depth"},
            SettingsError,
            "may hold nearness",
        ),
        ({"depth_kind": "metres"}, SettingsError, "give `depth` too"),
        ({"guide": "mask"}, InputError, "needs a mask"),
        ({"guide": "mask", "mask": np.full((3, 3), 7.0)}, InputError, "outside of 0..1"),
        ({"guide": "mask", "masks": "."}, SettingsError, "has no path"),
        ({"verify": 3}, SettingsError, "no vision system"),
        ({"verify": "text", "target_size": 9000}, SettingsError, "contradict"),
        ({"settings": 7}, TypeError, "takes DjpegSettings"),
        ({"settings": vizcomp.DjpegSettings(), "quality": 3}, SettingsError, "say the same"),
        ({"max_pixels": 10}, InputError, "`max_pixels`"),
    ],
)
def test_wrong_calls_are_told_in_pythons_words(
    options: dict[str, Any], kind: type[Exception], words: str
) -> None:
    with pytest.raises(kind) as caught:
        vizcomp.compress(np.zeros((16, 16), np.uint8), **options)
    said = f"{caught.value}; {getattr(caught.value, 'hint', '')}"
    assert words in said
    assert "--" not in said


def test_depth_and_masks_in_hand() -> None:
    image = picture(128, 128)
    left = np.zeros((16, 16), np.float32)
    left[:, :8] = 1.0

    def error(result: vizcomp.Compressed, half: slice) -> float:
        return float(np.abs(np.asarray(result.open()).astype(float) - image)[:, half].mean())

    kept = vizcomp.compress(image, guide="mask", mask=left, strength=1, table="photo", quality=60)
    assert error(kept, slice(0, 64)) < error(kept, slice(64, 128))
    same = [
        left.astype(bool),
        (left * 255).astype(np.uint8),
        Image.fromarray((left * 255).astype(np.uint8)),
        left[..., None],
    ]
    assert all(
        vizcomp.compress(image, guide="mask", mask=m, strength=1, table="photo", quality=60).data
        == kept.data
        for m in same
    )

    def guided(depth: np.ndarray, kind: str) -> bytes:
        return vizcomp.compress(
            image, guide="depth", depth=depth, depth_kind=kind, strength=1, table="photo"
        ).data

    near_left = guided(left, "nearness")
    ramp = np.broadcast_to(np.linspace(1, 9, 32), (32, 32))
    assert guided(ramp, "metres") == guided((ramp * 1000).astype(np.uint16), "millimetres")
    assert guided(ramp, "metres") != guided(ramp, "nearness")
    assert near_left != guided(1 - left, "nearness")
    by_source = vizcomp.compress(
        image, guide="depth", depth=vizcomp.Depth(left), strength=1, table="photo"
    ).data
    assert by_source == near_left


def test_maps_of_folders_are_found_by_a_path(tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    mask = np.zeros((9, 9), np.uint8)
    mask[:5] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "a.png")
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    options: dict[str, Any] = {"guide": "mask", "strength": 1, "table": "photo"}
    found = vizcomp.compress(tmp_path / "a.png", masks=tmp_path / "masks", **options)
    assert found.data == vizcomp.compress(picture(), mask=mask, **options).data


def test_saving(tmp_path: Path) -> None:
    result = vizcomp.compress(picture(), **PLAIN)
    result.save(tmp_path / "new" / "a.jpg")
    assert (tmp_path / "new" / "a.jpg").read_bytes() == result.data
    with pytest.raises(SettingsError, match=r"a\.png says \.png, but the result is JPEG"):
        result.save(tmp_path / "a.png")
    with pytest.raises(vizcomp.VizcompError, match="exists"):
        result.save(tmp_path / "new" / "a.jpg", overwrite=False)


def test_a_source_that_would_not_get_smaller() -> None:
    small = vizcomp.compress(picture(), quality=5, **PLAIN).data
    result = vizcomp.compress(small, quality=95, **PLAIN)
    assert result.kept
    assert result.format == "jpeg"
    assert any("source kept" in notice for notice in result.notices)
    flat = encoded(np.zeros((64, 64, 3), np.uint8))
    result = vizcomp.compress(flat, **PLAIN)  # what is asked for is a JPEG
    assert (result.format, result.kept) == ("jpeg", False)
    assert any("larger than the source" in notice for notice in result.notices)
    kept = vizcomp.compress(flat, min_saving=0.05, **PLAIN)
    assert (kept.format, kept.kept, kept.data) == ("png", True, flat)


class Bright:
    """A classifier that a caller wrote: by the mean of the left half."""

    name = "bright"
    kind = "classes"
    fingerprint = "0" * 12
    classes: tuple[str, ...] = ("dark", "bright")
    native = 0

    def answers(self, images: Any) -> list[Any]:
        share = [float(image[:, : image.shape[1] // 2].mean()) / 255 for image in images]
        return [Classes(np.array([1 - s, s], np.float32)) for s in share]

    def importance(self, image: np.ndarray) -> np.ndarray:
        return np.array([[1.0, 0.0]], np.float32)


class Dark(Bright):
    name = "dark"


def test_verdicts_of_objects_and_names() -> None:
    image = np.clip(picture().astype(int) + 60, 0, 255).astype(np.uint8)
    result = vizcomp.compress(image, verify=Bright(), watch_with=[Dark()], min_quality=10, **PLAIN)
    assert result.verify_state == "verified"
    assert result.verified
    assert set(result.verify_score or {}) == {"bright"}
    assert set(result.watch_score or {}) == {"dark"}
    assert result.verify_trials >= 1
    with pytest.raises(SettingsError, match="two systems have the name 'bright'"):
        vizcomp.compress(image, verify=[Bright(), Bright()], **PLAIN)
    with pytest.raises(vizcomp.VizcompError):
        # the object is known within its call alone
        vizcomp.compress(image, verify="bright", **PLAIN)


def test_objects_travel_where_they_can(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(
        encoded(np.clip(picture().astype(int) + 60, 0, 255).astype(np.uint8))
    )
    report = vizcomp.compress_files(
        tmp_path / "a.png", tmp_path / "out", verify=Bright(), report=False, **PLAIN
    )
    assert [record.verify_state for record in report.files] == ["verified"]
    (about,) = report.settings["systems"]
    assert (about["name"], about["kind"], about["roles"]) == ("bright", "classes", ["verify"])
    own = Bright()
    own.answers = lambda images: Bright.answers(own, images)  # type: ignore[method-assign]  # cannot be pickled
    report = vizcomp.compress_files(
        tmp_path / "a.png", tmp_path / "here", verify=own, report=False, **PLAIN
    )
    assert [record.verify_state for record in report.files] == ["verified"]
    with pytest.raises(SettingsError, match="cannot travel"):
        vizcomp.compress_files(tmp_path / "a.png", tmp_path / "no", verify=own, jobs=2, **PLAIN)


def test_a_folder_of_results_lies_outside_of_the_inputs(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.jpg")
    for inputs, output in (
        (tmp_path / "in", tmp_path / "in" / "out"),
        ([tmp_path / "in"], tmp_path / "in"),
        (tmp_path / "in" / "a.jpg", tmp_path / "in"),
        (str(tmp_path / "in" / "*.jpg"), tmp_path / "in" / "out"),
    ):
        with pytest.raises(OutputError, match="the output folder"):
            vizcomp.compress_files(inputs, output, **PLAIN)
    assert [path.name for path in (tmp_path / "in").iterdir()] == ["a.jpg"]


def test_what_concerns_the_run_is_in_its_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    Image.fromarray(picture()).save(tmp_path / "in" / "a.jpg")
    (tmp_path / "cache").write_bytes(b"no folder")
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    report = vizcomp.compress_files(tmp_path / "in", tmp_path / "out", **PLAIN)
    (notice,) = report.notices
    assert "journal" in notice or "remember" in notice, notice
    written = json.loads((tmp_path / "out" / "report.json").read_text())
    assert written["notices"] == [notice]
    again = vizcomp.compress_files(tmp_path / "in", tmp_path / "out", **PLAIN)
    assert [record.status for record in again.files] == ["skipped"]
    assert any("1 result exists and is not known" in each for each in again.notices)


def test_networks_are_opened_once_by_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    judges._opened_depth.cache_clear()
    opened, opening = [], judges.open_depth

    def counted(*arguments: Any, **options: Any) -> Any:
        opened.append(arguments)
        return opening(*arguments, **options)

    monkeypatch.setattr(judges, "open_depth", counted)
    images = [picture(seed=seed) for seed in range(4)]
    results: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda i=i: results.setdefault(i, vizcomp.compress(images[i]).data))  # type: ignore[misc]
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {i: vizcomp.compress(images[i]).data for i in range(4)}
    assert len(opened) == 1
    judges._opened_depth.cache_clear()


def compressed(image: Any) -> Any:
    return vizcomp.compress(image, quality=30, **PLAIN)


def test_results_and_settings_travel() -> None:
    result = compressed(picture())
    again = pickle.loads(pickle.dumps(result))
    assert (again.data, again.quality, again.notices) == (
        result.data,
        result.quality,
        result.notices,
    )
    assert np.array_equal(again.importance, result.importance)
    for value in (vizcomp.DjpegSettings(quality=3), single.compress, InputError("a", "b")):
        pickle.loads(pickle.dumps(value))


def test_five_lines_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Each in a fresh interpreter, since that is how they are tried."""
    (tmp_path / "a.png").write_bytes(encoded(picture()))
    lines = """
    import sys, vizcomp, numpy, PIL.Image
    image = {"path": "a.png", "bytes": open("a.png", "rb").read(), "pil": PIL.Image.open("a.png")}
    image["array"] = numpy.asarray(image["pil"])
    small = vizcomp.compress(image[sys.argv[1]], quality=50)
    small.save(sys.argv[1] + ".jpg")
    """
    code = "\n".join(line.strip() for line in lines.strip().splitlines())
    for kind in ("path", "bytes", "pil", "array"):
        subprocess.run(
            [sys.executable, "-W", "error", "-c", code, kind],
            cwd=tmp_path,
            check=True,
            env={**os.environ},
        )
    assert (
        len({(tmp_path / f"{kind}.jpg").read_bytes() for kind in ("path", "bytes", "pil", "array")})
        == 1
    )


def test_many_files_from_a_script_without_a_guard(tmp_path: Path) -> None:
    """Workers are processes that are started anew; they must not run the script again."""
    (tmp_path / "in").mkdir()
    for i in range(13):
        Image.fromarray(picture(24, 24, i)).save(tmp_path / "in" / f"{i}.png")
    code = (
        "import vizcomp\nprint('once')\nreport = vizcomp.compress_files('in', 'out', quality=40,"
        " jobs=2, guide='uniform', table='photo', report=False)\nprint(report.totals.files,"
        " report.totals.failed, len(report.files))\n"
    )
    (tmp_path / "script.py").write_text(code)
    for arguments, given in ((["script.py"], None), (["-"], code)):
        out = subprocess.run(
            [sys.executable, *arguments],
            input=given,
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        assert out.stdout.split("\n")[:2] == ["once", "13 0 13"], out.stderr
        assert not (tmp_path / "out" / "report.html").exists()
        for path in (tmp_path / "out").iterdir():
            path.unlink()


def test_compress_in_workers_that_are_started_anew() -> None:
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        found = pool.map(vizcomp.compress, [picture(seed=0), picture(seed=1)])
    assert [result.data for result in found] == [
        vizcomp.compress(picture(seed=i)).data for i in range(2)
    ]


def test_encode_and_decode_of_one_image(tmp_path: Path) -> None:
    grey = picture(32, 48)[..., 0]
    made = vizcomp.encode(grey, iterations=2)
    assert (made.width, made.height, made.iterations) == (48, 32, 2)
    assert made.bpp == 8 * len(made) / (48 * 32)
    made.save(tmp_path / "a.vzc")
    shown = vizcomp.decode(made).image
    assert shown.shape == (32, 48)
    with (tmp_path / "a.vzc").open("rb") as file:
        for source in (bytes(made), tmp_path / "a.vzc", str(tmp_path / "a.vzc"), file):
            assert np.array_equal(vizcomp.decode(source).image, shown)
    assert pickle.loads(pickle.dumps(made)) == made
    with pytest.raises(InputError, match=r"no \.vzc file"):
        vizcomp.decode(3)
    with pytest.raises(SettingsError, match="bits for each pixel"):
        vizcomp.encode(grey, bpp=0)


CONTRACT = {
    "quality": 50,
    "guide": "depth+machine",
    "depth": None,
    "depth_kind": "auto",
    "mask": None,
    "verify": None,
    "format": "jpeg",
}
"""Keywords of `compress` and their defaults, as they were promised."""


def test_help_shows_every_setting() -> None:
    import inspect

    for call in (vizcomp.compress, vizcomp.compress_files):
        names = list(inspect.signature(call).parameters)
        assert {
            "quality",
            "guide",
            "target_size",
            "min_saving",
            "metadata",
            "tolerance",
            "offline",
        } <= set(names)
        assert len(names) == len(set(names))
    have = inspect.signature(vizcomp.compress).parameters
    defaults = {name: have[name].default for name in CONTRACT}
    assert defaults == CONTRACT
    assert {have[name].kind for name in CONTRACT} == {inspect.Parameter.KEYWORD_ONLY}
