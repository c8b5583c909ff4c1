"""Files that were made to do harm: each ends in a result or in one of our errors, within limits;
every crash found stays here."""

from __future__ import annotations

import importlib.util
import io
import json
import struct
import sys
import zlib
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from kit import processor_seconds
from PIL import Image, ImageCms

from vizcomp.batch.decode import run_decode
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.encode_pack import run_encode_pack
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.records import FileRecord
from vizcomp.batch.settings import BatchSettings, DecodeSettings, EncodeSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import FormatError, InputError, ModelError, VizcompError
from vizcomp.files.find import find_inputs
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.packs import VzcPack
from vizcomp.photos.photo import load, to_srgb
from vizcomp.vision.systems import open_system
from vizcomp.vzc import packs
from vizcomp.vzc.packs import PackReader, PackWriter

HERE = Path(__file__).parents[1]


def load_guard() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fuzz_guard", HERE / "fuzz" / "guard.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["fuzz_guard"] = module  # its dataclasses look there for their annotations
    spec.loader.exec_module(module)
    return module


guard = load_guard()
needs_limits = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="limits as Linux has them"
)


@needs_limits
@pytest.mark.parametrize(
    ("kind", "trials"),
    [
        *(
            ("jpeg", 2000),
            ("photo", 800),
            ("vzc", 500),
            ("pack", 1000),
            ("onnx", 300),
            ("safetensors", 150),
        ),
        # the others where slow tests are asked for
        *(("segments", 150), ("chunks", 150), ("tar", 150), ("texts", 100)),
    ],
)
def test_mutated_files_end_in_a_result_or_an_error_of_ours(kind: str, trials: int) -> None:
    found = guard.run(kind, trials, seed=1)
    assert found.findings == {}
    assert found.trials == found.ends.total() == trials
    assert found.ends["read"] > 0
    assert found.ends.total() - found.ends["read"] > trials // 4


@needs_limits
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(guard.KINDS))
def test_twenty_thousand_of_each_kind(kind: str) -> None:
    found = guard.run(kind, 20_000)
    assert found.findings == {}
    assert found.ends.total() == 20_000


@needs_limits
def test_the_guard_finds_crashes_wrong_errors_and_what_takes_too_much(tmp_path: Path) -> None:
    """A guard that finds nothing must be one that could have."""
    planted = f"""
import ctypes, sys
sys.path.insert(0, {str(HERE / "fuzz")!r})
import guard

def end(data, dice):
    if data == b"4":
        ctypes.string_at(0)
    if data == b"5":
        raise KeyError("oh")
    if data == b"6":
        while True:
            pass
    if data == b"7":
        bytearray(1 << 30)
    return "read"

guard.__file__ = __file__
guard.KINDS["planted"] = guard.Kind(lambda: [], lambda files, dice: b"", end, seconds=1)
def trial_file(kind, files, seed, number):
    return str(number).encode(), guard.random.Random(0)
guard.trial_file = trial_file
if sys.argv[1:2] == ["--child"]:
    sys.exit(guard.main())
found = guard.run("planted", 10)
assert sorted(found.findings) == [4, 5, 6, 7], found
assert found.trials == 10
"""
    script = tmp_path / "planted.py"
    script.write_text(planted)
    import subprocess

    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# --- crashes that were found
# ------------------------------------------------------------------------------------------


def with_words(path: Path, source: Path, **changes: Any) -> Path:
    """A .safetensors file with other values in its configuration."""
    data = source.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["vizcomp"] = json.dumps(
        {**json.loads(header["__metadata__"]["vizcomp"]), **changes}
    )
    made = json.dumps(header).encode()
    path.write_bytes(len(made).to_bytes(8, "little") + made + data[8 + length :])
    return path


@pytest.mark.parametrize("network", [None, 1, "photo", [[0]], {"mean": "../x"}, {"stem": [0]}])
def test_found_a_codec_whose_configuration_is_none(
    tmp_path: Path, any_model: Path, network: object
) -> None:
    path = with_words(tmp_path / "odd.safetensors", any_model, network=network)
    with pytest.raises(VizcompError):
        NeuralCodec.load(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"network": 1},
        {"network": "x"},
        {"network": {"mean": "photo"}},
        {"network": {"mean": [0.5]}},
        {"classes": 3},
    ],
)
def test_found_a_classifier_whose_configuration_is_none(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    from vizcomp.nets.classifiers import build, save

    whole = tmp_path / "whole.safetensors"
    save(whole, "watcher", build("watcher", guard.TINY_WATCHER), ("a", "b"), {"name": "tiny"})
    with pytest.raises(ModelError, match=r"configuration|do not fit"):
        open_system(str(with_words(tmp_path / "odd.safetensors", whole, **changes)))


@pytest.mark.parametrize("name", ["names-no-text.onnx", "empty-answer.onnx"])
def test_found_onnx_models_whose_names_are_no_text_or_whose_answer_is_empty(name: str) -> None:
    with pytest.raises(ModelError):
        open_system(str(HERE / "fuzz" / "found" / name))


def test_an_onnx_model_that_wants_all_memory_for_its_input(tmp_path: Path) -> None:
    import onnx

    model = onnx.load_from_string(guard.onnx_files()[0])
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_value = 1_000_000
    (tmp_path / "it.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="more than 8192"):
        open_system(str(tmp_path / "it.onnx"))


@pytest.mark.parametrize("part", [0.0, 0.01, 0.5, 0.999])
def test_models_cut_short(tmp_path: Path, any_model: Path, part: float) -> None:
    for name, source in (("cut.safetensors", any_model), ("cut.onnx", None)):
        data = guard.onnx_files()[0] if source is None else source.read_bytes()
        (tmp_path / name).write_bytes(data[: int(len(data) * part)])
    with pytest.raises(ModelError):
        NeuralCodec.load(tmp_path / "cut.safetensors")
    with pytest.raises(ModelError):
        open_system(str(tmp_path / "cut.onnx"))


# --- photos
# --------------------------------------------------------------------------------------------------


def compressed(tmp_path: Path, data: bytes, name: str = "it.jpg") -> FileRecord:
    (tmp_path / "in").mkdir(exist_ok=True)
    path = tmp_path / "in" / name
    path.write_bytes(data)
    files = find_inputs([str(path)])
    return run_djpeg(
        files,
        tmp_path / "out",
        DjpegSettings(guide="uniform"),
        BatchSettings(overwrite=True),
        options=RunOptions(jobs=1),
    ).records[0]


def jpeg(mode: str = "RGB", side: int = 64, **options: Any) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)).convert(
        mode
    ).save(out, "JPEG", **{"quality": 95, **options})
    return out.getvalue()


@pytest.mark.parametrize("space", ["LAB", "XYZ", "sRGB"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_profile_of_another_colour_space(tmp_path: Path, space: str, mode: str) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile(space)).tobytes()
    record = compressed(tmp_path, jpeg(mode, icc_profile=profile))
    assert record.status in ("ok", "kept")
    photo = load(tmp_path / "in" / "it.jpg")
    assert to_srgb(photo)[0].shape[:2] == (64, 64)


def test_exif_as_large_as_a_segment_can_be_and_larger(tmp_path: Path) -> None:
    body = (
        b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\xee" * 65_000
    )  # a directory of 65,535 entries, most of them outside
    segment = b"\xff\xe1" + (len(body) + 2).to_bytes(2, "big") + body
    plain = jpeg()
    record = compressed(tmp_path, plain[:2] + segment * 20 + plain[2:])
    assert record.status in ("ok", "kept", "failed")
    assert record.status != "failed" or "unexpected" not in (record.error or "")


def test_a_polyglot_is_read_as_the_format_that_it_begins_with(tmp_path: Path) -> None:
    html = b"<script>alert(1)</script>"
    zipped = b"PK\x05\x06" + bytes(18)
    comment = b"\xff\xfe" + (len(html) + 2).to_bytes(2, "big") + html
    plain = jpeg()
    record = compressed(tmp_path, plain[:2] + comment + plain[2:] + html + zipped)
    assert record.status == "ok"
    assert record.output is not None
    written = Path(record.output).read_bytes()
    assert html not in written  # what is no picture is not carried along
    assert b"PK\x05\x06" not in written
    for other in (b"GIF89a" + plain, b"%PDF-1.7\n" + plain, b"<html>" + plain):
        assert compressed(tmp_path, other, "other.jpg").status == "failed"


def png_bomb(side: int) -> bytes:
    """A PNG of a few kB that claims to be huge, and is."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        )

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", head)
        + chunk(b"IDAT", zlib.compress(bytes(1 << 20), 9))
        + chunk(b"IEND", b"")
    )


def test_a_bomb_costs_itself_and_no_memory(tmp_path: Path) -> None:
    with processor_seconds(20):
        record = compressed(tmp_path, png_bomb(60_000), "bomb.png")
    assert record.status == "failed"
    assert "unexpected" not in (record.error or "")


# --- packs
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["../up.png", "/etc/x.png", "a/../../up.png", "a//b.png", "nul\0.png", ".", "a/./b.png"]
)
def test_names_that_leave_a_packs_folder_are_refused_on_both_sides(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = PackWriter(model=b"abcd")
    with pytest.raises(InputError):
        writer.add(b"\1", 32, 32, iterations=1, name=name)
    # as somebody would who writes packs with a program of their own
    with monkeypatch.context() as patch:
        patch.setattr(packs, "check_name", lambda *arguments, **options: None)
        forged = PackWriter(model=b"abcd")
        try:
            forged.add(b"\1", 32, 32, iterations=1, name=name)
            data = forged.finish()
        except (VizcompError, ValueError):
            return  # the format itself cannot say it
    with pytest.raises(FormatError):
        PackReader(data).name(0)


def test_a_pack_never_writes_through_a_link(tmp_path: Path, small_model: Path) -> None:
    source, elsewhere, output = tmp_path / "in" / "cat", tmp_path / "elsewhere", tmp_path / "out"
    for folder in (source, elsewhere, output / "set"):
        folder.mkdir(parents=True)
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(source / "a.png")
    pack = tmp_path / "set.vzc"
    settings = EncodeSettings(model=str(small_model))
    run_encode_pack(find_inputs([str(tmp_path / "in")]), pack, settings, options=RunOptions(jobs=1))
    assert len(VzcPack(pack, model=small_model)) == 1
    (output / "set" / "cat").symlink_to(elsewhere)
    chosen = DecodeSettings(model=str(small_model))
    run = run_decode(find_inputs([str(pack)]), output, chosen, options=RunOptions(jobs=1))
    assert run.records[0].status == "failed"
    assert "is a link" in (run.records[0].error or "")
    assert list(elsewhere.iterdir()) == []
