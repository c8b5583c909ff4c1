"""Files whose lengths and checksums are right and whose content is not.

What the mutators by structure found.
"""

from __future__ import annotations

import io
import json
import os
import sqlite3
import struct
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command, jpeg_bytes, picture, tiny_codec

import vizcomp
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.datasets import voc_labels
from vizcomp.datasets.moved_labels import Result
from vizcomp.depth.published import parse_options as parse_depth
from vizcomp.depth.published import reading_beside
from vizcomp.depth.values import read_values
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, ModelError, SettingsError, TooLargeError
from vizcomp.files.find import find_inputs
from vizcomp.fitting.policy import Policy
from vizcomp.training.settings import read_recipe
from vizcomp.vision.options import parse_options, read_options

posix = pytest.mark.skipif(os.name != "posix", reason="names and pipes as POSIX has them")
DEEP = "a = " + "[" * 5000 + "]" * 5000
LONG = "a = " + "1" * 5000
RESULT = Result(
    name="a.jpg", output="a.jpg", size=(56, 40), orientation=1, output_size=(28, 20), turned=False
)


# --- archives -------------------------------------------------------------------------------------


def with_records(path: Path, records: bytes) -> Path:
    """A tar of one photo before which POSIX records stand."""
    photo = jpeg_bytes(picture(1, 40, 56))
    head = bytearray(tarfile.TarInfo("x").tobuf(tarfile.USTAR_FORMAT))
    head[156:157], head[124:136], head[148:156] = b"x", b"%011o\0" % len(records), b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    about = tarfile.TarInfo("0001.jpg")
    about.size = len(photo)
    made = bytes(head) + records + bytes(-len(records) % 512) + about.tobuf(tarfile.USTAR_FORMAT)
    path.write_bytes(made + photo + bytes(-len(photo) % 512) + bytes(1024))
    return path


@pytest.mark.parametrize(
    "records",
    [
        b"-5 path=x\n",
        b"+0 path=x\n",
        b"1 1 1 1",
        b"12 mtime=nan",
        b"no record",
        b"9999999999 a=b\n",
    ],
)
def test_posix_records_that_are_none_neither_loop_nor_end_the_batch(
    tmp_path: Path, records: bytes
) -> None:
    shard = with_records(tmp_path / "a.tar", records)
    report = vizcomp.compress_files([shard], tmp_path / "out", guide="uniform", report=False)
    (record,) = report.files
    assert record.status in ("ok", "kept", "failed")
    if record.status != "failed":
        with tarfile.open(tmp_path / "out" / "a.tar") as tar:
            assert [member.name for member in tar if member.isreg()] == ["0001.jpg"]


def test_posix_records_are_renamed_as_before(tmp_path: Path) -> None:
    shard = with_records(tmp_path / "a.tar", b"22 comment=what it is\n19 path=d/0001.jpg\n")
    vizcomp.compress_files([shard], tmp_path / "out", guide="uniform", report=False)
    with tarfile.open(tmp_path / "out" / "a.tar") as tar:
        (member,) = tar
        assert member.name == "d/0001.jpg"
        assert member.pax_headers["comment"] == "what it is"


# --- texts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [DEEP, LONG, "a = 1e400", "[" + ".".join("a" * 3000) + "]", "a = [1", "\udc80"]
)
def test_toml_that_is_odd_is_one_error(
    tmp_path: Path, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.toml"
    path.write_text(text, "utf-8", "surrogateescape")
    with pytest.raises(InputError) as policy:
        Policy.read(path)
    with pytest.raises(SettingsError) as recipe:
        read_recipe(path)
    assert command("djpeg", tmp_path / "nothing", "-o", tmp_path / "out", "--config", path) == 2
    said = capfd.readouterr().err.splitlines()
    assert len(said) <= 2
    assert all(len(error.value.message.splitlines()) == 1 for error in (policy, recipe))


def test_values_of_other_tools_in_pyproject_are_theirs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text(
        "[tool.other]\nlimit = inf\n[tool.vizcomp]\nquiet = true\n"
    )
    monkeypatch.chdir(tmp_path)
    assert command("djpeg", "nothing.jpg", "-o", "out") == 2


@posix
def test_pipes_and_devices_in_the_place_of_words_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(ModelError):
        read_options(tmp_path / "a.json")
    (tmp_path / "b.json").write_text('{"classes": "/dev/zero"}')
    assert read_options(tmp_path / "b.json").classes in ((), ("\0",))


@pytest.mark.parametrize("value", [10**400, "1e999", "nan", float("-1e308"), [[]], None, {"a": 1}])
def test_options_of_models_that_no_number_can_hold(tmp_path: Path, value: object) -> None:
    path = tmp_path / "net.json"
    said = []
    for name in ("mean", "std", "size", "least", "multiple", "crop"):
        path.write_text(json.dumps({name: value}))
        for read in (read_options, reading_beside):
            try:
                read(path)
            except (ModelError, SettingsError) as exc:
                said.append(exc.message)
    assert said
    assert max(map(len, said)) < 500
    for parse in (parse_options, parse_depth):
        with pytest.raises(SettingsError):
            parse("mean=nan/0/0")


def test_words_of_hugging_face_that_no_number_can_hold(tmp_path: Path) -> None:
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({"image_mean": [10**400] * 3, "image_std": [1, 1, 1]})
    )
    assert reading_beside(tmp_path / "net.onnx").mean == ()


@pytest.mark.parametrize("encoding", ["x" * 99, "hex", "rot13", "utf-7"])
def test_voc_of_an_encoding_that_is_none(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.xml"
    head = f'<?xml version="1.0" encoding="{encoding}"?>'
    path.write_text(head + "<annotation><filename>b.jpg</filename></annotation>")
    with pytest.raises(ValueError, match=r"broken XML|not supported"):
        voc_labels.moved(path, RESULT)


@pytest.mark.parametrize("read", [read_options, reading_beside])
def test_a_line_end_in_an_option_stays_out_of_the_message(tmp_path: Path, read: Any) -> None:
    for name in ("size", "norm", "classes", "multiple", "kind"):
        (tmp_path / "net.json").write_text(json.dumps({name: "a\nb"}))
        with pytest.raises(ModelError) as refused:
            read(tmp_path / "net.json")
        assert len(refused.value.message.splitlines()) == 1


def test_voc_is_not_read_to_any_depth(tmp_path: Path) -> None:
    path = tmp_path / "a.xml"
    path.write_text("<annotation>" + "<a>" * 100_000)
    with pytest.raises(ValueError, match="too deeply"):
        voc_labels.moved(path, RESULT)
    path.write_text("<annotation>" + "<a/>" * 300_000 + "</annotation>")
    with pytest.raises(ValueError, match="too many"):
        voc_labels.moved(path, RESULT)


# --- maps -----------------------------------------------------------------------------------------


def test_an_exr_is_refused_by_its_window(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    path = tmp_path / "a.exr"
    head = {"compression": openexr.NO_COMPRESSION, "type": openexr.scanlineimage}
    with openexr.File(head, {"Z": np.ones((6, 8), np.float32)}) as made:
        made.write(str(path))
    assert read_values(path).numbers.shape == (6, 8)
    data = path.read_bytes()
    window = data.index(b"dataWindow\0box2i\0") + 21
    for box in ((0, 0, 99_999, 99_999), (-(1 << 31), 0, (1 << 31) - 1, 5), (5, 5, 0, 0)):
        path.write_bytes(data[:window] + struct.pack("<4i", *box) + data[window + 16 :])
        with pytest.raises(TooLargeError, match="pixels"):
            read_values(path)


# --- what a run remembers -------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def resumed(folder: Path, source: str = "in") -> list[Any]:
    settings = DjpegSettings(guide="uniform")
    found = run_djpeg(
        find_inputs([folder / source]),
        folder / "out",
        settings,
        BatchSettings(resume=True),
        RunOptions(jobs=1),
    )
    return list(found.records)


def remembered(cache: Path, column: str, value: object) -> None:
    (base,) = (cache / "journals").glob("*.sqlite")
    with sqlite3.connect(base) as journal:
        journal.execute(f"UPDATE outputs SET {column} = ?", (value,))
    journal.close()


ODD_RECORDS = [
    "{",
    "[]",
    "{}",
    '{"status": 3}',
    "[" * 100_000,
    '{"x": 1}',
    '{"input": "a", "output": null, "status": "ok", "width": "wide"}',
    '{"input": "a", "output": null, "status": "good"}',
    '{"input": "a", "output": null, "status": "ok", "watch_same": {"x": {}}}',
    '{"input": "a", "output": null, "status": "ok", "notices": [3]}',
]


@pytest.mark.parametrize("record", ODD_RECORDS)
def test_a_record_that_is_none_is_made_again(tmp_path: Path, cache: Path, record: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(jpeg_bytes(picture(1, 64, 64)))
    first = resumed(tmp_path)
    data = (tmp_path / "out" / "a.jpg").read_bytes()
    remembered(cache, "record", record)
    again = resumed(tmp_path)
    assert [(r.status, r.output_bytes) for r in again] == [
        (r.status, r.output_bytes) for r in first
    ]
    assert (tmp_path / "out" / "a.jpg").read_bytes() == data


@pytest.mark.parametrize("payload", [b"", b"x", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_shard_whose_rows_are_lost_is_made_again(
    tmp_path: Path, cache: Path, payload: bytes
) -> None:
    shard = tmp_path / "in.tar"
    with tarfile.open(shard, "w") as tar:
        data = jpeg_bytes(picture(1, 64, 64))
        about = tarfile.TarInfo("1.jpg")
        about.size = len(data)
        tar.addfile(about, io.BytesIO(data))
    first = resumed(tmp_path, "in.tar")
    made = (tmp_path / "out" / "in.tar").read_bytes()
    remembered(cache, "payload", payload)
    again = resumed(tmp_path, "in.tar")
    assert [(r.input, r.status, r.output_bytes) for r in again] == [
        (r.input, r.status, r.output_bytes) for r in first
    ]
    assert (tmp_path / "out" / "in.tar").read_bytes() == made


def test_nothing_to_do_starts_no_worker(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(8):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(jpeg_bytes(picture(number, 64, 64)))
    resumed(tmp_path)

    def never(*_: object, **__: object) -> Iterator[Any]:
        raise AssertionError("tasks went through an engine")

    monkeypatch.setattr("vizcomp.batch.loop.map_tasks", never)
    assert [r.status for r in resumed(tmp_path)] == ["ok"] * 8


# --- terminals ------------------------------------------------------------------------------------


@posix
def test_nothing_that_a_file_says_changes_the_terminal(tmp_path: Path) -> None:
    """Names of files, of folders, of classes in a pack, of options.

    No escape sequence reaches the terminal.
    """
    evil = "\x1b]0;owned\x07\x1b[2J\r"
    (tmp_path / evil).mkdir()
    (tmp_path / evil / f"{evil}.jpg").write_bytes(jpeg_bytes(picture(1, 64, 64)))
    (tmp_path / evil / f"{evil}2.jpg").write_bytes(b"no photo")
    (tmp_path / "bad.toml").write_text(f'"\\u001b[2J" = 3\n# {evil!r}\n')
    codec = tiny_codec(tmp_path / "codec.safetensors")
    kind = tmp_path / "classes" / f"a{evil}"
    kind.mkdir(parents=True)
    (kind / "1.png").write_bytes(jpeg_bytes(picture(1, 32, 32)))
    runs = [
        ["djpeg", evil, "-o", f"out{evil}", "--guide", "uniform", "-v", "--report", "none"],
        ["djpeg", evil, "-o", "out", "--guide", "uniform", "--config", "bad.toml"],
        ["djpeg", evil, "-o", "out", "--guide", "uniform", f"--{evil}"],
        ["djpeg", f"{evil}/none", "-o", "out"],
        ["encode", "classes", "--pack", "-o", f"{evil}.vzc", "--model", str(codec)],
        ["info", f"{evil}.vzc"],
        ["eval", "--data", evil, "--classifier", f"{evil}.onnx", "-o", "out2"],
        ["weights", "add", evil, f"{evil}/{evil}.jpg"],
        ["encode", evil, "--model", f"{evil}.safetensors"],
    ]
    environment = {**os.environ, "VIZCOMP_CACHE": str(tmp_path / "cache"), "NO_COLOR": "1"}
    code = (
        "import json, sys, io\nfrom vizcomp import cli\n"
        "for arguments in json.loads(sys.stdin.read()):\n"
        "    sys.argv = ['vizcomp', *arguments]\n"
        "    try:\n        cli.main()\n    except SystemExit:\n        pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(runs),
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    said = done.stdout + done.stderr
    assert "Traceback" not in said
    assert "owned" in said
    assert not [character for character in said if ord(character) < 32 and character not in "\n\t"]
