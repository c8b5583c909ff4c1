"""Finding, naming, reading, turning and writing of photos, as a user meets them."""

from __future__ import annotations

import errno
import io
import os
import threading
import warnings
from pathlib import Path, PurePath

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from vizcomp.datasets.read import read_labelled
from vizcomp.depth.maps import read_depth_map
from vizcomp.errors import InputError, OutputError, UnsupportedError, VizcompError
from vizcomp.files.find import EXTENSIONS, InputFile, find_inputs
from vizcomp.files.names import OutputNames, _safe_part
from vizcomp.files.place import printable
from vizcomp.files.write import _rename_to_new, check_output_folder, write_atomic
from vizcomp.photos.encode import encode_depth_png16, encode_plain_jpeg
from vizcomp.photos.frame import resize_map, stored, thumbnail, upright
from vizcomp.photos.photo import decode_jpeg, load, load_bytes

SAMPLES = Path(__file__).parents[2] / "samples"


@pytest.fixture(autouse=True)
def _no_warnings() -> None:
    warnings.simplefilter("error")


def noise(
    height: int = 24, width: int = 40, channels: int = 3, seed: int = 0
) -> npt.NDArray[np.uint8]:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def smooth(height: int = 24, width: int = 40) -> npt.NDArray[np.uint8]:
    y, x = np.mgrid[0:height, 0:width]
    return np.stack(
        [x * 255 / width, y * 255 / height, (x + y) * 255 / (width + height)], axis=-1
    ).astype(np.uint8)


def photo_file(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {".png": "PNG", ".webp": "WEBP", ".gif": "GIF"}.get(path.suffix.lower(), "JPEG")
    Image.fromarray(noise(seed=seed)).save(path, kind, **options)
    return path


def shown_below(root: Path, found: list[InputFile]) -> list[str]:
    return [file.path.relative_to(root).as_posix() for file in found]


# --- finding


def test_a_folder_is_walked_in_order_and_hidden_names_are_left_out(tmp_path: Path) -> None:
    names = ["b.jpg", "a.JPG", "z/1.png", "z/y/0.webp", "c/9.jpeg"]
    for name in [*names, ".hidden.jpg", ".cache/x.jpg", "notes.txt", "noext"]:
        photo_file(tmp_path / name)
    found = list(find_inputs([tmp_path]))
    assert shown_below(tmp_path, found) == ["a.JPG", "b.jpg", "c/9.jpeg", "z/1.png", "z/y/0.webp"]
    assert [f.relative.as_posix() for f in found] == shown_below(tmp_path, found)
    assert [f.shown for f in found] == [str(f.path) for f in found]


@pytest.mark.parametrize(
    "name", ["@eaDir", "lost+found", "#recycle", "$RECYCLE.BIN", "System Volume Information"]
)
def test_folders_of_systems_hold_neither_photos_nor_classes(tmp_path: Path, name: str) -> None:
    for folder in ("cat", "dog", name, f"cat/{name}"):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (32, 32)).save(tmp_path / folder / "a.png")
    assert [f.relative.as_posix() for f in find_inputs([str(tmp_path)])] == [
        "cat/a.png",
        "dog/a.png",
    ]
    assert read_labelled(tmp_path, size=32).classes == ("cat", "dog")


def test_a_named_file_is_taken_whatever_its_suffix_and_keeps_only_its_name(tmp_path: Path) -> None:
    path = photo_file(tmp_path / "deep" / "photo.data")
    (found,) = find_inputs([str(path)])
    assert (found.path, found.relative) == (path, PurePath("photo.data"))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("*", ["a.jpg", "s/b.jpg", "s/c.png", "s/t/d.jpg"]),
        ("**/*.jpg", ["a.jpg", "s/b.jpg", "s/t/d.jpg"]),
        ("**", ["a.jpg", "s/b.jpg", "s/c.png", "s/t/d.jpg"]),
        ("s/**/d.*", ["s/t/d.jpg"]),
        ("?/[bc].*", ["s/b.jpg", "s/c.png"]),
        ("s/*/*.jpg", ["s/t/d.jpg"]),
        ("**/*.txt", ["s/readme.txt"]),
    ],
)
def test_patterns(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    for name in [
        "a.jpg",
        "s/b.jpg",
        "s/c.png",
        "s/t/d.jpg",
        "s/readme.txt",
        ".h/e.jpg",
        "s/.f.jpg",
    ]:
        photo_file(tmp_path / name)
    assert shown_below(tmp_path, list(find_inputs([str(tmp_path / pattern)]))) == expected


def test_a_pattern_keeps_the_tree_below_its_fixed_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_file(tmp_path / "p/s/a.jpg")
    monkeypatch.chdir(tmp_path)
    (found,) = find_inputs(["p/*/a.jpg"])
    assert (found.path, found.relative) == (Path("p/s/a.jpg"), PurePath("s/a.jpg"))
    (found,) = find_inputs(["**/a.jpg"])
    assert (found.path, found.relative) == (Path("p/s/a.jpg"), PurePath("p/s/a.jpg"))


def test_a_name_that_exists_is_no_pattern(tmp_path: Path) -> None:
    path = photo_file(tmp_path / "a[1].jpg")
    photo_file(tmp_path / "a1.jpg")
    assert [f.path for f in find_inputs([path])] == [path]


def test_the_same_file_comes_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = photo_file(tmp_path / "d/a.jpg")
    (tmp_path / "d/link.jpg").symlink_to("a.jpg")
    (tmp_path / "other").symlink_to("d")
    monkeypatch.chdir(tmp_path)
    found = list(
        find_inputs([path, tmp_path, "d/../d/a.jpg", "d/link.jpg", "other/a.jpg", "**/*.jpg"])
    )
    assert [f.path for f in found] == [path]


def test_two_hard_links_are_two_photos(tmp_path: Path) -> None:
    os.link(photo_file(tmp_path / "a.jpg"), tmp_path / "b.jpg")
    assert len(list(find_inputs([tmp_path]))) == 2


@pytest.mark.parametrize("pattern", ["", "**/*.jpg", "**"])
def test_linked_folders_are_entered_once_and_loops_end(tmp_path: Path, pattern: str) -> None:
    photo_file(tmp_path / "in/a/x.jpg")
    photo_file(tmp_path / "outside/y.jpg")
    (tmp_path / "in/a/up").symlink_to(tmp_path / "in")
    (tmp_path / "in/a/self").symlink_to(".")
    (tmp_path / "in/far").symlink_to(tmp_path / "outside")
    (tmp_path / "outside/back").symlink_to(tmp_path / "in")
    found = list(find_inputs([str(tmp_path / "in" / pattern)]))
    assert sorted(os.path.basename(f.path) for f in found) == ["x.jpg", "y.jpg"]


def test_an_output_folder_below_an_input_is_not_walked(tmp_path: Path) -> None:
    photo_file(tmp_path / "a.jpg")
    photo_file(tmp_path / "out/a.jpg")
    photo_file(tmp_path / "sub/out/b.jpg")
    for source in (tmp_path, tmp_path / "**/*.jpg"):
        found = list(find_inputs([source], exclude=tmp_path / "sub" / ".." / "out"))
        assert shown_below(tmp_path, found) == ["a.jpg", "sub/out/b.jpg"]
    assert len(list(find_inputs([tmp_path / "out"], exclude=tmp_path / "out"))) == 1  # named itself


@pytest.mark.parametrize(
    "name", ["missing.jpg", "missing/", "a.jpg/b.jpg", "*.webp", "no/*.jpg", "", "empty", "x\0y"]
)
def test_nothing_found_is_an_error_before_the_first_photo(tmp_path: Path, name: str) -> None:
    photo_file(tmp_path / "a.jpg")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/notes.txt").write_text("no photo")
    with pytest.raises(InputError) as caught:
        find_inputs([str(tmp_path / name) if name else ""])  # not iterated
    assert caught.value.hint
    assert "\n" not in caught.value.message


def test_one_missing_input_among_good_ones_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="gone"):
        find_inputs([photo_file(tmp_path / "a.jpg"), tmp_path / "gone.jpg"])
    with pytest.raises(InputError, match="no input"):
        find_inputs([])


def test_pipes_are_skipped_in_folders_and_refused_by_name(tmp_path: Path) -> None:
    photo_file(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "gone.jpg").symlink_to("nowhere")
    told: list[InputError] = []
    assert shown_below(tmp_path, list(find_inputs([tmp_path], report=told.append))) == ["a.jpg"]
    assert ["leads to no file" in problem.message for problem in told] == [True]
    for name, word in (
        ("pipe.jpg", "pipe"),
        ("/dev/null", "device"),
        ("gone.jpg", "leads nowhere"),
    ):
        with pytest.raises(InputError) as caught:
            find_inputs([tmp_path / name])
        assert word in caught.value.message + caught.value.hint
    with pytest.raises(InputError, match="pipe"):  # must not wait for a writer
        load(tmp_path / "pipe.jpg")


def test_an_unreadable_folder_is_told_and_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photo_file(tmp_path / "a.jpg")
    photo_file(tmp_path / "shut/b.jpg")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.fspath(path).endswith("shut"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    told: list[InputError] = []
    assert shown_below(tmp_path, list(find_inputs([tmp_path], report=told.append))) == ["a.jpg"]
    assert "shut" in told[0].message
    assert "permission denied" in told[0].message
    with pytest.raises(InputError, match="permission denied"):
        find_inputs([tmp_path / "shut"])


ODD_NAMES = [
    "-q.jpg",
    "two\nlines.jpg",
    "e\u0301t\u00e9.jpg",
    "фото.jpg",
    "写真.jpg",
    "👩‍👧.jpg",
    "a b'\"$(x).jpg",
    "tab\t\x1b[31m.jpg",
]


@pytest.mark.parametrize("name", [*(n.encode() for n in ODD_NAMES), b"latin-\xe9\xff.jpg"])
def test_any_name_is_found_read_named_and_written(tmp_path: Path, name: bytes) -> None:
    path = photo_file(tmp_path / "in" / os.fsdecode(name))
    (found,) = find_inputs([tmp_path / "in"])
    found.shown.encode()  # valid UTF-8
    assert found.shown.splitlines() == [found.shown]
    assert "\x1b" not in found.shown
    photo = load(found.path)
    target = OutputNames(tmp_path / "out").path_for(found)
    assert photo.jpeg is not None
    write_atomic(target, photo.jpeg)
    assert os.listdir(os.fsencode(tmp_path / "out")) == [name]
    assert target.read_bytes() == path.read_bytes()
    path.write_bytes(b"broken")
    with pytest.raises(InputError) as caught:
        load(path)
    caught.value.message.encode()
    assert "\n" not in caught.value.message


def test_printable_changes_only_what_does_harm() -> None:
    for good in ("写真/été.jpg", "👩‍👧.jpg", "e\u0301.jpg", "a b.jpg"):
        assert printable(good) == good
    assert printable("a\nb\x1b\u202ec" + os.fsdecode(b"\xff")) == "a\\nb\\x1b\\u202ec\\xff"


# --- names of outputs


def outputs(root: Path, names: list[str], suffix: str = ".jpg") -> dict[str, str]:
    """Output of each of `names` found below `root` by their relative path; the files need not
    exist."""
    namer = OutputNames(root / "out", suffix)
    made = {n: namer.path_for(InputFile(root / "in" / n, PurePath(n))) for n in names}
    assert len({str(p).casefold() for p in made.values()}) == len(names)
    return {n: p.relative_to(root / "out").as_posix() for n, p in made.items()}


def test_the_tree_is_mirrored(tmp_path: Path) -> None:
    assert outputs(tmp_path, ["a.jpg", "s/t/b.PNG", "noext", "x.y.webp"]) == {
        "a.jpg": "a.jpg", "s/t/b.PNG": "s/t/b.jpg", "noext": "noext.jpg", "x.y.webp": "x.y.jpg",
    }  # fmt: skip
    assert outputs(tmp_path, ["s/b.jpeg"], ".depth.png") == {"s/b.jpeg": "s/b.depth.png"}


@pytest.mark.parametrize("suffix", [".jpg", ".depth.png"])
def test_clashing_stems_are_named_by_the_folder_not_by_the_order(
    tmp_path: Path, suffix: str
) -> None:
    names = [
        "a.jpg",
        "a.png",
        "a.jpeg",
        "b.png",
        "b.webp",
        "c.JPG",
        "c.jpg",
        "d.png",
        "E.jpg",
        "e.png",
        "f.png",
        "f.txt",
    ]
    for name in names:
        photo_file(tmp_path / "in" / name)
    expected = {
        "a.jpg": "a", "a.png": "a.png", "a.jpeg": "a.jpeg", "b.png": "b.png", "b.webp": "b.webp",
        "c.jpg": "c", "c.JPG": "c.JPG", "d.png": "d", "E.jpg": "E", "e.png": "e.png", "f.png": "f",
    }  # fmt: skip
    names.remove("f.txt")
    whole = {name: made + suffix for name, made in expected.items()}
    assert outputs(tmp_path, names, suffix) == whole
    assert outputs(tmp_path, names[::-1], suffix) == whole
    for name in names:
        assert outputs(tmp_path, [name], suffix) == {name: whole[name]}


def test_a_lengthened_name_does_not_take_another_photos_name(tmp_path: Path) -> None:
    names = ["a.jpg", "a.png", "a.png.jpg", "n.jpg", "n.png", "n.png-2.jpg", "n.png.webp"]
    for name in names:
        photo_file(tmp_path / "in" / name)
    forwards = outputs(tmp_path, names)
    assert forwards == outputs(tmp_path, names[::-1])
    assert forwards["a.png.jpg"] == "a.png.jpg"
    assert forwards["a.png"] == "a.png-2.jpg"
    assert forwards["n.png"] == "n.png-3.jpg"


def test_a_file_does_not_take_the_name_of_a_folder(tmp_path: Path) -> None:
    names = ["b.png", "b.jpg/x.png"]
    for name in names:
        photo_file(tmp_path / "in" / name)
    assert outputs(tmp_path, names) == {"b.png": "b-2.jpg", "b.jpg/x.png": "b.jpg/x.jpg"}


def test_files_of_one_name_from_different_folders_are_numbered(tmp_path: Path) -> None:
    namer = OutputNames(tmp_path / "out")
    files = [InputFile(photo_file(tmp_path / d / "a.jpg"), PurePath("a.jpg")) for d in "xyz"]
    assert [namer.path_for(f).name for f in files] == ["a.jpg", "a-2.jpg", "a-3.jpg"]
    assert [namer.path_for(f).name for f in files] == ["a.jpg", "a-2.jpg", "a-3.jpg"]  # asked again


@given(
    names=st.lists(
        st.from_regex(r"([abAB]|\.\.|x/y|c)(-2|\.png)?\.(jpg|JPG|png|webp)", fullmatch=True),
        min_size=1,
        max_size=12,
        unique=True,
    )
)
@settings(max_examples=60, deadline=None)
def test_never_two_inputs_on_one_output(
    tmp_path_factory: pytest.TempPathFactory, names: list[str]
) -> None:
    root = tmp_path_factory.mktemp("names")
    for name in names:
        path = root / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outputs(root, names)


@pytest.mark.parametrize(
    "relative", ["../../etc/a.jpg", "/etc/a.jpg", "x/../../a.jpg", "./a.jpg", ".."]
)
def test_no_output_leaves_its_folder(tmp_path: Path, relative: str) -> None:
    made = OutputNames(tmp_path / "out").path_for(InputFile(tmp_path / "a.jpg", PurePath(relative)))
    assert os.path.normpath(made) == str(made)
    assert made.is_relative_to(tmp_path / "out")
    assert made != tmp_path / "out"


def test_names_of_devices_are_changed_on_windows() -> None:
    assert _safe_part("aux.jpg", windows=True) == "_aux.jpg"
    assert _safe_part("COM1", windows=True) == "_COM1"
    assert _safe_part("a:b?.jpg. ", windows=True) == "a_b_.jpg"
    assert _safe_part("aux.jpg", windows=False) == "aux.jpg"


# --- frames


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_upright_is_what_pillow_shows(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    buffer = io.BytesIO()
    Image.fromarray(smooth(16, 32)).save(
        buffer, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {})
    )
    photo = load_bytes(buffer.getvalue(), "photo")
    with Image.open(io.BytesIO(buffer.getvalue())) as image:
        expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    kept = 1 if kind == "TIFF" else orientation  # Pillow turns a TIFF as it decodes
    assert photo.orientation == kept
    assert photo.pixels.shape == (
        (32, 16, 3) if kind == "TIFF" and orientation >= 5 else (16, 32, 3)
    )
    np.testing.assert_array_equal(upright(photo.pixels, photo.orientation), expected)
    assert photo.exif is not None
    assert photo.exif.startswith(b"Exif\0\0")
    again = Image.Exif()
    again.load(photo.exif)
    assert again[0x010F] == "maker"
    assert again.get(0x0112, 1) == kept


@given(
    height=st.integers(1, 9),
    width=st.integers(1, 9),
    channels=st.sampled_from([None, 1, 3]),
    orientation=st.integers(-1, 10),
)
@settings(max_examples=80, deadline=None)
def test_stored_undoes_upright(
    height: int, width: int, channels: int | None, orientation: int
) -> None:
    shape = (height, width) if channels is None else (height, width, channels)
    array = np.arange(np.prod(shape)).reshape(shape)
    there = upright(array, orientation)
    assert there.shape[:2] == ((width, height) if 5 <= orientation <= 8 else (height, width))
    np.testing.assert_array_equal(stored(there, orientation), array)
    np.testing.assert_array_equal(upright(stored(array, orientation), orientation), array)


# --- reading what is ordinary


def test_a_jpeg_is_read_with_its_bytes_and_metadata(tmp_path: Path) -> None:
    from PIL import ImageCms

    icc = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "a.jpg"
    Image.fromarray(smooth()).save(
        path, quality=95, icc_profile=icc, exif=exif, xmp=b"<x:xmpmeta/>", dpi=(300, 300)
    )
    photo = load(path)
    assert (photo.format, photo.jpeg, photo.source_bytes) == (
        "JPEG",
        path.read_bytes(),
        path.stat().st_size,
    )
    assert (photo.icc, photo.xmp, photo.dpi, photo.orientation) == (
        icc,
        b"<x:xmpmeta/>",
        (300.0, 300.0),
        6,
    )
    assert photo.exif == exif.tobytes()
    assert photo.notices == ()
    assert photo.pixels.dtype == np.uint8
    assert photo.pixels.flags.c_contiguous
    np.testing.assert_array_equal(photo.pixels, np.asarray(Image.open(path)))


def test_a_large_jpeg_is_put_together_from_strips() -> None:
    pixels = np.tile(smooth(64, 64), (29, 40, 1))[:1801]  # more than two strips, the last one short
    for source in (pixels, pixels[:, :, 0]):
        data = encode_plain_jpeg(source, quality=90)
        expected = np.asarray(Image.open(io.BytesIO(data)))
        np.testing.assert_array_equal(load_bytes(data, "large").pixels, expected)
        np.testing.assert_array_equal(decode_jpeg(data), expected)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (7, 9)])
@pytest.mark.parametrize("channels", [1, 3])
def test_small_and_thin_photos_go_round(size: tuple[int, int], channels: int) -> None:
    pixels = noise(*size, channels)
    data = encode_plain_jpeg(pixels, quality=50)
    assert load_bytes(data, "thin").pixels.shape == pixels.shape
    assert decode_jpeg(data).shape == pixels.shape
    assert max(thumbnail(pixels, long_side=64).shape[:2]) <= 64


def test_load_takes_no_lasting_setting_of_pillow() -> None:
    before = Image.MAX_IMAGE_PIXELS
    load(SAMPLES / "chelsea.png")
    assert before == Image.MAX_IMAGE_PIXELS
    assert warnings.filters[0][0] == "error"


def test_threads_may_load_at_once() -> None:
    paths = sorted(p for p in SAMPLES.iterdir() if p.suffix in EXTENSIONS)
    expected = {p: load(p).pixels.sum() for p in paths}
    wrong: list[object] = []

    def work() -> None:
        for path in paths:
            try:
                if load(path).pixels.sum() != expected[path]:
                    wrong.append(path)
            except VizcompError as exc:
                wrong.append(exc)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert Image.MAX_IMAGE_PIXELS is not None


def test_every_sample_is_listed_with_its_source_and_loads() -> None:
    paths = [p for p in SAMPLES.iterdir() if p.suffix in EXTENSIONS]
    assert len(paths) >= 4
    assert sum(p.stat().st_size for p in paths) < 1_500_000
    sources = (SAMPLES / "SOURCES.md").read_text()
    for path in paths:
        photo = load(path)
        assert f"`{path.name}`" in sources
        assert f"{photo.pixels.shape[1]} x {photo.pixels.shape[0]}" in sources


# --- plain JPEG, thumbnails, maps


def test_plain_jpeg_is_pillows_own() -> None:
    pixels = smooth()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=50)
    assert encode_plain_jpeg(pixels, quality=50) == buffer.getvalue()
    full = encode_plain_jpeg(
        pixels[::-1],
        quality=90,
        subsampling="4:4:4",
        optimize=True,
        progressive=True,
        exif=b"Exif\0\0II",
    )
    with Image.open(io.BytesIO(full)) as image:
        assert image.info["progressive"]
        assert image.info["exif"] == b"Exif\0\0II"
        assert [component[1:3] for component in image.layer] == [(1, 1)] * 3


def test_what_no_jpeg_can_hold_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="65536"):
        encode_plain_jpeg(np.zeros((1, 65536), np.uint8), quality=50)
    with pytest.raises(UnsupportedError, match="metadata"):
        encode_plain_jpeg(smooth(), quality=50, exif=b"Exif\0\0" + bytes(70000))


def test_thumbnails_keep_the_shape_and_never_grow() -> None:
    assert thumbnail(smooth(100, 200), long_side=50).shape == (25, 50, 3)
    assert thumbnail(noise(100, 20, 1), long_side=50).shape == (50, 10)
    small = smooth()
    np.testing.assert_array_equal(thumbnail(small, long_side=50), small)
    assert (
        abs(float(thumbnail(smooth(100, 200), long_side=50).mean()) - smooth(100, 200).mean()) < 1
    )


def test_resize_map_keeps_range_and_slope() -> None:
    ramp = np.tile(np.linspace(0, 1, 30, dtype=np.float32), (20, 1))
    large = resize_map(ramp, 77, 100)
    assert (large.shape, large.dtype) == ((77, 100), np.float32)
    assert large.min() >= 0
    assert large.max() <= 1
    assert (np.diff(large, axis=1) >= -1e-6).all()
    np.testing.assert_allclose(large.mean(), ramp.mean(), atol=1e-3)
    np.testing.assert_array_equal(resize_map(ramp, 20, 30), ramp)


def test_a_depth_map_goes_round_in_16_bits(tmp_path: Path) -> None:
    depth = np.random.default_rng(0).random((20, 30), dtype=np.float32)
    write_atomic(tmp_path / "d.png", encode_depth_png16(depth))
    back = read_depth_map(tmp_path / "d.png")
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, depth, atol=0.51 / 65535)
    edge = encode_depth_png16(np.array([[np.nan, -1, 2, 0.5]], np.float32))
    assert np.asarray(Image.open(io.BytesIO(edge))).tolist() == [[0, 0, 65535, 32768]]


def test_depth_maps_of_other_kinds(tmp_path: Path) -> None:
    grey = noise(channels=1)
    expected = grey / np.float32(255)
    Image.fromarray(grey).save(tmp_path / "8.png")
    np.testing.assert_allclose(read_depth_map(tmp_path / "8.png"), expected)
    Image.fromarray(np.stack([grey] * 3, axis=-1)).save(tmp_path / "rgb.png")
    np.testing.assert_allclose(read_depth_map(tmp_path / "rgb.png"), expected, atol=0.01)
    Image.fromarray(np.dstack([grey] * 3 + [np.zeros_like(grey)])).save(tmp_path / "rgba.png")
    np.testing.assert_allclose(read_depth_map(tmp_path / "rgba.png"), expected, atol=0.01)
    Image.fromarray(grey).convert("P").save(tmp_path / "p.png")
    np.testing.assert_allclose(read_depth_map(tmp_path / "p.png"), expected, atol=0.01)
    metres = grey.astype(np.float32) * 3 - 7
    metres[0, 0] = np.nan
    Image.fromarray(metres).save(tmp_path / "f.tif")
    low, high = np.nanmin(metres), np.nanmax(metres)
    scaled = (np.nan_to_num(metres, nan=low) - low) / (high - low)
    np.testing.assert_allclose(read_depth_map(tmp_path / "f.tif"), scaled, atol=1e-6)
    Image.fromarray(np.full((3, 3), 9, np.float32)).save(tmp_path / "flat.tif")
    assert read_depth_map(tmp_path / "flat.tif").tolist() == [[0] * 3] * 3
    (tmp_path / "no.png").write_text("no map")
    with pytest.raises(InputError, match=r"no\.png"):
        read_depth_map(tmp_path / "no.png")


# --- writing


def listing(folder: Path) -> list[str]:
    return sorted(os.listdir(folder))


def test_written_whole_with_folders_and_times(tmp_path: Path) -> None:
    path = tmp_path / "a/b/c.jpg"
    write_atomic(path, b"one", times=(1_000_000_000, 2_000_000_123))
    assert path.read_bytes() == b"one"
    assert path.stat().st_mtime_ns == 2_000_000_123
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert listing(path.parent) == ["c.jpg"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_overwriting_can_be_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    write_atomic(path, b"one", overwrite=False)
    with pytest.raises(OutputError, match="exists already"):
        write_atomic(path, b"two", overwrite=False)
    with pytest.raises(FileExistsError):  # what another process wrote meanwhile
        _rename_to_new(photo_file(tmp_path / "t.jpg"), path)
    assert path.read_bytes() == b"one"


def test_no_overwriting_on_a_disk_without_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def link(*_: object, **__: object) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    write_atomic(tmp_path / "a.jpg", b"one", overwrite=False)
    with pytest.raises(OutputError):
        write_atomic(tmp_path / "a.jpg", b"two", overwrite=False)
    assert (tmp_path / "a.jpg").read_bytes() == b"one"
    assert listing(tmp_path) == ["a.jpg"]


def test_a_link_at_the_target_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    for name, aim in (
        ("a.jpg", tmp_path / "victim"),
        ("b.jpg", tmp_path),
        ("c.jpg", tmp_path / "nowhere"),
    ):
        link = tmp_path / "out" / name
        link.symlink_to(aim)
        write_atomic(link, b"new")
        assert not link.is_symlink()
        assert link.read_bytes() == b"new"
    assert (tmp_path / "victim").read_bytes() == b"precious"
    assert listing(tmp_path) == ["out", "victim"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_full_disk_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    (tmp_path / "a.jpg").write_bytes(b"old")
    real = os.write
    calls: list[int] = []

    def write(descriptor: int, data: memoryview) -> int:
        if calls:
            raise OSError(number, os.strerror(number))
        calls.append(descriptor)
        return real(descriptor, data[:3])  # a short write first

    monkeypatch.setattr(os, "write", write)
    with pytest.raises(OutputError) as caught:
        write_atomic(tmp_path / "a.jpg", b"new and longer")
    assert "a.jpg" in caught.value.message
    assert caught.value.hint
    assert isinstance(caught.value.__cause__, OSError)
    assert listing(tmp_path) == ["a.jpg"]
    assert (tmp_path / "a.jpg").read_bytes() == b"old"


def test_short_writes_are_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real(descriptor, data[:3]))
    write_atomic(tmp_path / "a.jpg", b"0123456789")
    assert (tmp_path / "a.jpg").read_bytes() == b"0123456789"


def test_an_interrupt_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "a.jpg", b"new")
    assert listing(tmp_path) == []


def test_targets_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "folder.jpg").mkdir()
    for target, words in (
        (tmp_path / "file/a.jpg", "not a folder"),
        (tmp_path / "file/sub/a.jpg", "not a folder"),
        (tmp_path / "folder.jpg", "there is a folder"),
        (tmp_path / ("n" * 300 + ".jpg"), "too long"),
        (Path("/proc/a.jpg"), "cannot be written"),
    ):
        with pytest.raises(OutputError, match=words) as caught:
            write_atomic(target, b"x")
        assert caught.value.hint
    assert listing(tmp_path) == ["file", "folder.jpg"]
    # the temporary name must not be longer than the target's
    longest = tmp_path / ("n" * 251 + ".jpg")
    write_atomic(longest, b"x")
    assert longest.read_bytes() == b"x"


def test_the_output_folder_is_made_and_proved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_output_folder(tmp_path / "a/b")
    assert listing(tmp_path / "a/b") == []
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "file", tmp_path / "file/sub", Path("/proc/vizcomp")):
        with pytest.raises(OutputError) as caught:
            check_output_folder(path)
        assert caught.value.hint
        assert caught.value.exit_code == 2

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OutputError, match="no space left"):
        check_output_folder(tmp_path / "a/b")
    assert listing(tmp_path / "a/b") == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="permission denied"):
        check_output_folder(tmp_path)
