"""Ready-made depth maps as robots, data sets and other programs write them."""

from __future__ import annotations

import io
import json
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from kit import command, picture
from PIL import Image

from vizcomp.depth.kinds import Depth
from vizcomp.depth.maps import MapFolder, mask_hint
from vizcomp.depth.sources import model_options
from vizcomp.errors import InputError, SettingsError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.photos.encode import encode_depth_png16
from vizcomp.photos.photo import load_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path_factory.mktemp("cache")))


def distances() -> np.ndarray:
    """Metres, float32 (40, 60): near below, far above."""
    return np.linspace(6.0, 0.8, 40, dtype=np.float32)[:, None].repeat(60, 1)


def pfm(values: np.ndarray, order: str) -> bytes:
    scale = b"-1" if order == "<" else b"1"
    head = b"Pf\n%d %d\n%s\n" % (values.shape[1], values.shape[0], scale)
    return head + values[::-1].astype(order + "f4").tobytes()


def npy(values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, values)
    return out.getvalue()


def npz(**values: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, **values)
    return out.getvalue()


def image(values: np.ndarray, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.fromarray(values).save(out, kind)
    return out.getvalue()


def depth_of(folder: Path, name: str, data: bytes, kind: str = "auto", names: str = "") -> Depth:
    (folder / name).write_bytes(data)
    photo = load_bytes(image(picture(0)), "a.png")
    return MapFolder(folder, kind=kind, names=names)(photo, InputFile(Path("a.jpg"), Path("a.jpg")))


def assert_near_is_below(depth: Depth) -> None:
    assert depth.nearness.dtype == np.float32
    assert depth.nearness.shape == (40, 60)
    assert depth.nearness[-1].min() > 0.9
    assert depth.nearness[0].max() < 0.1


# --- kinds ----------------------------------------------------------------------------------------


METRES, MILLIMETRES = distances(), (distances() * 1000).astype(np.uint16)
TILT = np.linspace(0, 0.02, 60, dtype=np.float32)[None]  # so that few values are equal
ONE_READING = {
    "millimetres of a sensor": ("a.png", image(MILLIMETRES)),
    "our own millimetres": (
        "a.png",
        encode_depth_png16(METRES * np.float32(1000 / 65535 / 3), kind="millimetres"),
    ),
    "our own nearness": ("a.depth.png", encode_depth_png16((6 - METRES) / np.float32(5.3) + TILT)),
    "8 bits": ("a.png", image(((6 - METRES) / 5.2 * 255).astype(np.uint8))),
    "integers in npy": ("a.npy", npy(MILLIMETRES)),
}


@pytest.mark.parametrize("name", ONE_READING)
def test_what_has_one_reading_is_recognised(name: str, tmp_path: Path) -> None:
    assert_near_is_below(depth_of(tmp_path, *ONE_READING[name]))


SEVERAL_READINGS = {
    "floats in npy": ("a.npy", npy(METRES)),
    "floats in pfm": ("a.pfm", pfm(METRES, "<")),
    "floats in tiff": ("a.tif", image(METRES, "TIFF")),
    "normalised floats": ("a.npy", npy(METRES / 6)),
    "12 bits": ("a.png", image(np.linspace(0, 4095, 600).astype(np.uint16).reshape(20, 30))),
    "KITTI": ("a.png", image((METRES * 10 * 256).astype(np.uint16))),
    "TUM": ("a.png", image((METRES * 5000).astype(np.uint16))),
    "full range with holes": (
        "a.png",
        image(np.where(METRES > 5, 0, 65535 * (METRES / 6)).astype(np.uint16)),
    ),
    "a small disparity": ("a.png", image((100 / METRES).astype(np.uint16))),
}


@pytest.mark.parametrize("name", SEVERAL_READINGS)
def test_what_has_several_readings_is_asked(name: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as told:
        depth_of(tmp_path, *SEVERAL_READINGS[name])
    assert "nearness|metres|millimetres|disparity" in told.value.hint


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("metres", METRES),
        ("metres", (METRES * 256).astype(np.uint16)),  # KITTI's scale
        ("millimetres", MILLIMETRES),
        ("disparity", 100 / METRES + 1),
        ("nearness", 6 - METRES),
    ],
)
def test_a_kind_that_is_said(kind: str, values: np.ndarray, tmp_path: Path) -> None:
    depth = depth_of(tmp_path, "a.npy", npy(values), kind)
    assert depth.nearness[-1].min() > depth.nearness[20].max() > depth.nearness[0].max()
    assert depth.confidence is None


@pytest.mark.parametrize("kind", ["metres", "millimetres", "disparity"])
@pytest.mark.parametrize("hole", [0.0, -1.0, np.nan, np.inf])
def test_holes_are_unknown_and_not_far(kind: str, hole: float, tmp_path: Path) -> None:
    values = METRES.copy()
    values[10:20, 10:30] = hole
    depth = depth_of(tmp_path, "a.npy", npy(values), kind)
    assert depth.confidence is not None
    assert depth.confidence[10:20, 10:30].max() == 0
    assert depth.confidence.sum() == 40 * 60 - 200
    assert np.isfinite(depth.nearness).all()
    assert 0.2 < depth.nearness[15, 15] < 0.8


def test_what_sensors_invent_does_not_flatten_the_rest(tmp_path: Path) -> None:
    values = MILLIMETRES.copy()
    values[0, :3] = 65535
    assert_near_is_below(depth_of(tmp_path, "a.png", image(values)))


def test_nothing_but_holes_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holes"):
        depth_of(tmp_path, "a.png", image(np.zeros((8, 8), np.uint16)), "millimetres")


def test_a_coloured_picture_of_depth_is_refused(tmp_path: Path) -> None:
    grey = ((6 - METRES) / 5.2 * 255).astype(np.uint8)
    coloured = np.stack([grey, 255 - grey, np.full_like(grey, 90)], -1)
    for data in (image(coloured), image(coloured, "GIF")):
        with pytest.raises(InputError, match="coloured"):
            depth_of(tmp_path, "a.png", data)
    assert_near_is_below(depth_of(tmp_path, "a.png", image(np.stack([grey] * 3, -1), "JPEG")))


# --- forms ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npy", npy(METRES.astype(np.float64))),
        ("a.npy", npy(METRES[..., None])),
        ("a.npy", npy(np.asfortranarray(METRES.astype(np.float16)))),
        ("a.npz", npz(anything=METRES)),
        ("a.npz", npz(depth=METRES, other=np.zeros(3))),
        ("a.pfm", pfm(METRES, "<")),
        ("a.pfm", pfm(METRES, ">")),
        ("a.tif", image(METRES, "TIFF")),
    ],
)
def test_arrays_are_read(name: str, data: bytes, tmp_path: Path) -> None:
    assert_near_is_below(depth_of(tmp_path, name, data, "metres"))


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.npy", npy(METRES)[:-8]),
        ("a.npy", b"no array"),
        ("a.npy", npy(np.array([{}], object))),
        ("a.npy", npy(np.zeros((4, 4, 3)))),
        ("a.npy", npy(METRES).replace(b"(40, 60)", b"(4e9,60)")),
        ("a.npz", npz(one=METRES, two=METRES)),
        ("a.npz", b"PK no archive"),
        ("a.pfm", pfm(METRES, "<")[:-8]),
        ("a.pfm", b"PF\n1 1\n-1\n" + bytes(12)),
        ("a.pfm", b"Pf\n99999999 99999999\n-1\n"),
    ],
)
def test_broken_arrays_are_our_errors(name: str, data: bytes, tmp_path: Path) -> None:
    with pytest.raises(VizcompError):
        depth_of(tmp_path, name, data, "metres")


def test_exr_is_read_where_its_library_is(tmp_path: Path) -> None:
    import OpenEXR as exr

    header = {"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}
    with exr.File(header, {"Z": METRES}) as file:
        file.write(str(tmp_path / "b.exr"))
    assert_near_is_below(depth_of(tmp_path, "a.exr", (tmp_path / "b.exr").read_bytes(), "metres"))


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("photo", "there"),
    [
        (unicodedata.normalize("NFC", "café.jpg"), unicodedata.normalize("NFD", "café.png")),
        (unicodedata.normalize("NFD", "café.jpg"), unicodedata.normalize("NFC", "café.png")),
        ("A.jpg", "a.png"),
        ("a.jpg", "A.PNG"),
        ("Trip/a.jpg", "trip/a.depth.PNG"),
        (unicodedata.normalize("NFC", "é/a.jpg"), unicodedata.normalize("NFD", "é/a.png")),
    ],
)
def test_names_that_differ_in_case_or_composition_find_each_other(
    photo: str, there: str, tmp_path: Path
) -> None:
    (tmp_path / there).parent.mkdir(exist_ok=True)
    (tmp_path / there).write_bytes(b"")
    assert MapFolder(tmp_path).path_for(InputFile(Path(photo), Path(photo))) == tmp_path / there


def test_the_exact_name_comes_first(tmp_path: Path) -> None:
    for name in ("a.png", "A.png"):
        (tmp_path / name).write_bytes(b"")
    for name in ("a", "A"):
        assert (
            MapFolder(tmp_path).path_for(InputFile(Path(f"{name}.jpg"), Path(f"{name}.jpg")))
            == tmp_path / f"{name}.png"
        )


def test_maps_by_a_pattern(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    depth = depth_of(tmp_path, "raw/depth_a.png", image(MILLIMETRES), names="raw/depth_{stem}.png")
    assert_near_is_below(depth)
    for pattern in ("depth.png", "../{stem}.png", "/{stem}.png", "{stem}{name}.png"):
        with pytest.raises(SettingsError):
            MapFolder(tmp_path, names=pattern)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in ("a", "b"):
        Image.fromarray(picture(len(name), 40, 60)).save(tmp_path / "photos" / f"{name}.png")
    (tmp_path / "maps").mkdir()
    return tmp_path / "photos"


def djpeg(photos: Path, *arguments: object) -> int:
    return command("djpeg", photos, "-o", photos.parent / "out", "-j", 1, *arguments)


def test_the_command_asks_once_and_before_the_first_photo(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    maps = photos.parent / "maps"
    (maps / "a.npy").write_bytes(npy(METRES))
    assert djpeg(photos, "--depth-maps", maps) == 2
    said = capsys.readouterr().err
    assert said.count("--depth-kind nearness|metres|millimetres|disparity") == 1
    assert not list((photos.parent / "out").glob("*.jpg"))
    assert djpeg(photos, "--depth-maps", maps, "--depth-kind", "metres") == 1  # b has none
    rows = {
        Path(r["input"]).stem: r
        for r in json.loads((photos.parent / "out" / "report.json").read_text())["files"]
    }
    assert rows["a"]["status"] in ("ok", "kept")
    assert "no depth map" in rows["b"]["error"]


def test_no_map_at_all_is_one_error(photos: Path) -> None:
    assert djpeg(photos, "--depth-maps", photos.parent / "maps") == 2
    assert djpeg(photos, "--guide", "mask", "--masks", photos.parent / "maps") == 2


@pytest.mark.parametrize(
    "wrong",
    [
        ["--masks", "maps"],
        ["--depth-maps", "maps", "--guide", "detail"],
        ["--depth-kind", "metres"],
        ["--depth-names", "{stem}_d.png"],
        ["--depth-maps", "maps", "--depth-kind", "feet"],
        ["--depth-maps", "maps", "--depth-names", "d.png"],
    ],
)
def test_options_without_an_effect_are_errors(
    photos: Path, wrong: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(photos.parent)
    Image.fromarray(np.full((4, 4), 9, np.uint8)).save("maps/a.png")
    assert djpeg(photos, *wrong) == 2


@pytest.mark.parametrize(("level", "told"), [(1, True), (255, False), (0, False), (2, False)])
def test_masks_of_0_and_1_give_a_hint(photos: Path, level: int, told: bool) -> None:
    mask = np.zeros((40, 60), np.uint8)
    mask[10:20] = level
    for name in ("a", "b"):
        Image.fromarray(mask).save(photos.parent / "maps" / f"{name}.png")
    assert bool(mask_hint(mask / np.float32(255))) == told
    assert djpeg(photos, "--guide", "mask", "--masks", photos.parent / "maps") == 0
    for row in json.loads((photos.parent / "out" / "report.json").read_text())["files"]:
        assert any("1 of 255" in n for n in row["notices"]) == told


def test_options_in_a_models_name(tmp_path: Path) -> None:
    assert model_options("nyu") == ("nyu", "auto", False)
    assert model_options("nyu:size=full,flip") == ("nyu", "full", True)
    assert model_options("/a/mine.h5:flip=no,size=64x64") == ("/a/mine.h5", "64x64", False)
    for spec, hint in (
        ("nyu:sise=full", "size"),
        ("nyu:flop", "flip"),
        ("nyu:size=", "nyu:size"),
        ("nyu:x=1", "nyu:"),
    ):
        with pytest.raises(SettingsError) as told:
            model_options(spec)
        assert hint in told.value.hint
    (tmp_path / "odd:size=1.onnx").write_bytes(b"")
    assert model_options(str(tmp_path / "odd:size=1.onnx")) == (
        str(tmp_path / "odd:size=1.onnx"),
        "auto",
        False,
    )
