"""`vizcomp encode`, `decode` and `info` as a user types them: files, reports, messages, exit
codes."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from kit import command, jpeg_bytes, size_of, tree
from PIL import Image

from vizcomp.batch import encode_pack, engines, groups
from vizcomp.batch.encode import EncodeTask, encode_some
from vizcomp.batch.encode_pack import run_encode_pack
from vizcomp.batch.groups import worker_codec
from vizcomp.batch.items import Outcome
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.packs import _pack
from vizcomp.batch.records import CodecRecord
from vizcomp.batch.settings import EncodeSettings
from vizcomp.files.find import find_inputs
from vizcomp.neural import find
from vizcomp.neural.codec import NeuralCodec
from vizcomp.neural.packs import VzcPack
from vizcomp.vzc import image as vzc

GOLDEN = Path(__file__).parents[1] / "golden" / "decoded"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "NO_COLOR": "1", "COLUMNS": "200"}


class Done(NamedTuple):
    out: str
    err: str

    @property
    def report(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found

    def rows(self) -> dict[str, dict[str, Any]]:
        return {Path(row["input"]).name: row for row in self.report["files"]}


Command = Callable[..., Done]


@pytest.fixture
def vizcomp(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    """Runs a command in this process (torch is loaded once), in `tmp_path`, with an empty cache
    beside it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path.with_name(tmp_path.name + "-cache")))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setattr(find, "_cache", {})
    monkeypatch.setattr(engines, "TASKS_TO_ISOLATE", 10**9)  # a worker would load torch once more

    def run(*arguments: object, code: int = 0) -> Done:
        worker_codec.cache_clear()
        _pack.cache_clear()
        ended = command(*arguments)
        done = Done(*capfd.readouterr())
        assert ended == code, done.err
        assert "Traceback" not in done.err
        return done

    return run


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path))


@pytest.fixture
def classes(tmp_path: Path, cat: np.ndarray) -> Path:
    """30 images of 32x32 in two class folders, one of them grey."""
    for i in range(30):
        path = tmp_path / "set" / ("cat", "dog")[i % 2] / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        part = cat[i * 8 : i * 8 + 32, i * 5 : i * 5 + 32]
        Image.fromarray(part[..., 1] if i == 4 else part).save(path)
    return tmp_path / "set"


# --- there and back
# -------------------------------------------------------------------------------------------------


def test_a_folder_there_and_back(
    vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path
) -> None:
    done = vizcomp("encode", folder, "-o", "enc", "--model", any_model, "--json")
    enc, dec = tmp_path / "enc", tmp_path / "dec"
    assert tree(enc) == {"a/coffee.vzc", "cat.vzc", "cat.png.vzc", "grey.vzc"}
    report = done.report
    assert report["tool"] == "vizcomp encode"
    assert report["settings"]["model"] == str(any_model)
    for row in report["files"]:
        output = Path(row["output"])
        header = vzc.read_header(output.read_bytes())
        assert (
            (row["width"], row["height"]) == size_of(row["input"]) == (header.width, header.height)
        )
        assert row["status"] == "ok"
        assert row["error"] is None
        assert row["iterations"] == 3
        assert row["source_bytes"] == Path(row["input"]).stat().st_size
        assert row["output_bytes"] == output.stat().st_size
        assert row["bpp"] == pytest.approx(8 * row["output_bytes"] / (row["width"] * row["height"]))
        assert row["seconds"] > 0
    totals = report["totals"]
    assert (
        totals["files"],
        totals["failed"],
        totals["skipped"],
        totals["partial"],
        totals["images"],
    ) == (4, 0, 0, 0, 4)
    assert totals["output_bytes"] == sum(p.stat().st_size for p in enc.rglob("*.vzc"))
    assert totals["bpp"] == pytest.approx(8 * totals["output_bytes"] / totals["pixels"])
    done = vizcomp("decode", "enc", "-o", dec, "--model", any_model, "--json")
    assert tree(dec) == {"a/coffee.png", "cat.png", "cat.png.png", "grey.png"}
    codec = NeuralCodec.load(any_model)
    for row in done.report["files"]:
        expected = codec.decode(Path(row["input"]).read_bytes()).image
        assert np.array_equal(pixels(Path(row["output"])), expected)
        assert row["output_bytes"] == Path(row["output"]).stat().st_size
    assert pixels(dec / "grey.png").ndim == 2
    assert done.report["totals"]["bpp"] == pytest.approx(totals["bpp"])


def test_beside_the_input_by_default(
    vizcomp: Command, tmp_path: Path, cat: np.ndarray, any_model: Path
) -> None:
    Image.fromarray(cat).save(tmp_path / "img.png")
    (tmp_path / "img.jpg").write_bytes(jpeg_bytes(cat))
    before = (tmp_path / "img.png").read_bytes()
    done = vizcomp("encode", "img.png", "img.jpg", "--model", any_model, "--iterations", 2, "-v")
    assert tree(tmp_path) == {"img.png", "img.jpg", "img.vzc", "img.png.vzc"}
    assert "img.jpg -> img.vzc" in done.err
    assert "bits a pixel" in done.out
    done = vizcomp("decode", "img.vzc", "--model", any_model, code=2)
    assert (tmp_path / "img.png").read_bytes() == before, (
        "a source is not replaced by what is left of it"
    )
    assert "1 result exists and is not known" in done.err
    vizcomp("decode", "img.vzc", "--model", any_model, "--overwrite", "--iterations", 1)
    codec = NeuralCodec.load(any_model)
    data = (tmp_path / "img.vzc").read_bytes()
    assert vzc.read_header(data).iterations == 2
    assert np.array_equal(pixels(tmp_path / "img.png"), codec.decode(data, iterations=1).image)


def test_one_file_may_be_named(
    vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path
) -> None:
    vizcomp("encode", folder / "cat.png", "-o", "sub/x.vzc", "--model", any_model)
    vizcomp("decode", "sub/x.vzc", "-o", "y.png", "--model", any_model)
    assert (tmp_path / "sub" / "x.vzc").is_file()
    assert pixels(tmp_path / "y.png").shape == (300, 451, 3)
    done = vizcomp("encode", folder, "-o", "z.vzc", "--model", any_model, code=2)
    assert "several" in done.err


def test_small_images_in_groups_are_what_they_are_alone(
    vizcomp: Command, classes: Path, tmp_path: Path, small_model: Path
) -> None:
    vizcomp("encode", classes, "-o", "enc", "--model", small_model, "--search", 4, "-j", 1)
    codec = NeuralCodec.load(small_model)
    assert len(tree(tmp_path / "enc")) == 30
    for name in tree(tmp_path / "enc"):
        source = pixels(classes / name.replace(".vzc", ".png"))
        assert (tmp_path / "enc" / name).read_bytes() == codec.encode(source, search=4)
    vizcomp("decode", "enc", "-o", "dec", "--model", small_model)
    for name in tree(tmp_path / "dec"):
        expected = codec.decode(
            (tmp_path / "enc" / name.replace(".png", ".vzc")).read_bytes()
        ).image
        assert np.abs(pixels(tmp_path / "dec" / name).astype(int) - expected).max() <= 1
    assert pixels(tmp_path / "dec" / "cat" / "004.png").ndim == 2


def test_bits_for_each_pixel(
    vizcomp: Command,
    classes: Path,
    folder: Path,
    tmp_path: Path,
    small_model: Path,
    any_model: Path,
) -> None:
    whole = {
        r["input"]: r
        for r in vizcomp("encode", classes, "--dry-run", "--json", "--model", small_model).report[
            "files"
        ]
    }
    assert not list(tmp_path.rglob("*.vzc"))
    limit = float(np.median([r["bpp"] for r in whole.values()])) - 0.01
    rows = vizcomp(
        "encode", classes, "-o", "enc", "--model", small_model, "--bpp", limit, "--json"
    ).report["files"]
    assert all(r["bpp"] <= limit or r["iterations"] == 1 for r in rows)
    assert {r["iterations"] for r in rows} >= {2}
    assert pixels(classes / "cat" / "004.png").ndim == 2
    assert vzc.read_header((tmp_path / "enc" / "cat" / "004.vzc").read_bytes()).grey
    row = vizcomp(
        "encode", folder / "cat.jpg", "-o", "enc", "--model", any_model, "--bpp", 0.0001, "--json"
    ).report["files"][0]
    assert row["iterations"] == 1
    packed = vizcomp(
        "encode", classes, "--pack", "-o", "a.vzc", "--model", small_model, "--bpp", limit, "--json"
    ).report["files"]
    assert all(r["bpp"] <= limit or r["iterations"] == 1 for r in packed)
    pack = VzcPack(tmp_path / "a.vzc", model=small_model)
    assert [pack.reader.entry(i).iterations for i in range(30)] == [r["iterations"] for r in packed]


def test_what_a_missing_model_ends_with(vizcomp: Command, tmp_path: Path) -> None:
    former = GOLDEN / "photo-7a8659ab.vzc"
    said = vizcomp("decode", former, "-o", "back", code=3)
    assert "7a8659ab" in said.err
    (tmp_path / "bad.vzc").write_bytes(b"nothing")
    vizcomp("decode", former, tmp_path / "bad.vzc", "-o", "back", code=1)


def test_jobs_change_no_byte(
    vizcomp: Command, tmp_path: Path, classes: Path, any_model: Path, cat: np.ndarray
) -> None:
    for n in range(7):
        Image.fromarray(cat[n:]).save(classes / f"photo{n}.png")
    reports = [
        vizcomp("encode", classes, "-o", f"enc{j}", "--model", any_model, "-j", j, "--json").report
        for j in (1, 2)
    ]
    one, two = tmp_path / "enc1", tmp_path / "enc2"
    assert len(tree(one)) == 37
    assert tree(one) == tree(two)
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in tree(one))
    assert [r["input"] for r in reports[0]["files"]] == [r["input"] for r in reports[1]["files"]]


# --- packs
# --------------------------------------------------------------------------------------------------


def test_a_pack_there_and_back(
    vizcomp: Command, classes: Path, tmp_path: Path, small_model: Path
) -> None:
    done = vizcomp(
        "encode",
        "--pack",
        classes,
        "-o",
        "set.vzc",
        "--model",
        small_model,
        "--search",
        0,
        "--json",
    )
    size = (tmp_path / "set.vzc").stat().st_size
    report = done.report
    assert report["totals"]["output_bytes"] == size
    assert report["totals"]["images"] == 30
    assert {r["output"] for r in report["files"]} == {"set.vzc"}
    assert sum(r["output_bytes"] for r in report["files"]) < size
    pack = VzcPack(tmp_path / "set.vzc", model=small_model)
    assert pack.classes == ("cat", "dog")
    names = [str(p.relative_to(classes)) for p in sorted(classes.rglob("*.png"))]
    assert [pack.reader.name(i) for i in range(30)] == names
    assert [pack.label(i) for i in range(30)] == [int(n.startswith("dog")) for n in names]
    before = {name: (classes / name).read_bytes() for name in tree(classes)}
    (row,) = vizcomp("decode", "set.vzc", "--model", small_model, "--json", code=2).report["files"]
    assert row["status"] == "skipped"  # the folder that was packed has the pack's name
    assert {name: (classes / name).read_bytes() for name in tree(classes)} == before
    (row,) = vizcomp("decode", "set.vzc", "-o", "new", "--model", small_model, "--json").report[
        "files"
    ]
    assert (row["output"], row["images"], row["width"], row["height"]) == ("new/set", 30, 32, 32)
    assert row["bpp"] == pytest.approx(8 * size / (30 * 1024))
    assert tree(tmp_path / "new" / "set") == set(names)


def test_what_a_pack_is_unpacked_to(
    vizcomp: Command, classes: Path, tmp_path: Path, small_model: Path
) -> None:
    Image.fromarray(pixels(classes / "cat" / "000.png")).save(classes / "cat" / "000.jpg")
    common = ("--pack", classes, "--model", small_model, "--search", 0)
    vizcomp("encode", *common, "-o", "named.vzc")
    vizcomp("encode", *common, "-o", "bare.vzc", "--no-names")
    done = vizcomp("decode", "named.vzc", "bare.vzc", "-o", "out", "--model", small_model)
    assert "62" in done.out
    out = tmp_path / "out"
    names = {str(p.relative_to(classes)) for p in classes.rglob("*.png")}
    assert tree(out / "named") == names | {"cat/000.jpg.png"}
    numbers = [f"{'cat' if i < 16 else 'dog'}/{i:02}.png" for i in range(31)]
    assert tree(out / "bare") == set(numbers)
    assert len((tmp_path / "bare.vzc").read_bytes()) < len((tmp_path / "named.vzc").read_bytes())
    pack = VzcPack(tmp_path / "named.vzc", model=small_model)
    for i in range(31):
        name = pack.reader.name(i)
        assert name is not None
        target = out / "named" / name.replace(".jpg", ".jpg.png")
        assert np.array_equal(pixels(target), pack[i])
        assert np.array_equal(pixels(out / "bare" / numbers[i]), pack[i])
    coarse = vizcomp(
        "decode", "bare.vzc", "-o", "coarse", "--model", small_model, "--iterations", 1, "--json"
    ).report["files"][0]
    assert coarse["iterations"] == 1
    assert np.array_equal(
        pixels(tmp_path / "coarse" / "bare" / "cat" / "03.png"), pack.batch([3], iterations=1)[0]
    )
    (out / "bare" / "cat" / "03.png").unlink()
    again = vizcomp("decode", "bare.vzc", "-o", "out", "--model", small_model, "--json").report[
        "files"
    ][0]
    assert (again["status"], again["images"]) == ("ok", 1)
    assert "30 of 31" in again["notices"][0]


def test_a_damaged_block_costs_its_images_only(
    vizcomp: Command, tmp_path: Path, small_model: Path, cat: np.ndarray
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(130):
        Image.fromarray(cat[i : i + 32, i : i + 32]).save(tmp_path / "in" / f"{i:03}.png")
    vizcomp("encode", "--pack", "in", "-o", "set.vzc", "--model", small_model, "--search", 0)
    data = bytearray((tmp_path / "set.vzc").read_bytes())
    data[300] ^= 4
    (tmp_path / "set.vzc").write_bytes(data)
    done = vizcomp("decode", "set.vzc", "--model", small_model, "--json", code=1)
    (row,) = done.report["files"]
    assert (row["status"], row["images"]) == ("partial", 66)
    assert "64 of 130 images lost" in row["error"]
    assert "block 0" in row["error"]
    assert tree(tmp_path / "set") == {f"{i:03}.png" for i in range(64, 130)}
    said = vizcomp("info", "set.vzc", code=1).out
    assert "64 of them in damaged blocks" in said
    assert "problem: the checksum of block 0" in said


def test_names_that_a_pack_cannot_hold(
    vizcomp: Command, tmp_path: Path, small_model: Path, cat: np.ndarray
) -> None:
    for folder in ("a", "b", "c/x\\y"):
        (tmp_path / folder).mkdir(parents=True)
        Image.fromarray(cat[:32, :32]).save(tmp_path / folder / "one.png")
    Image.fromarray(cat[:32, :32]).save(os.fsencode(tmp_path / "a") + b"/\xff.png")
    done = vizcomp(
        "encode",
        "--pack",
        "a",
        "b",
        "c",
        "-o",
        "set.vzc",
        "--model",
        small_model,
        "--search",
        0,
        "--json",
    )
    pack = VzcPack(tmp_path / "set.vzc", model=small_model)
    assert [pack.reader.name(i) for i in range(4)] == ["one.png", None, "one-2.png", None]
    assert pack.classes == ()
    assert (
        sum("packed without its name" in "".join(r["notices"]) for r in done.report["files"]) == 2
    )


def test_packs_that_are_refused(
    vizcomp: Command, classes: Path, tmp_path: Path, small_model: Path, cat: np.ndarray
) -> None:
    assert "-o" in vizcomp("encode", "--pack", classes, "--model", small_model, code=2).err
    assert (
        "is a folder"
        in vizcomp("encode", "--pack", classes, "-o", tmp_path, "--model", small_model, code=2).err
    )
    (tmp_path / "set.vzc").write_bytes(b"mine")
    arguments = (
        "encode",
        "--pack",
        classes,
        "-o",
        "set.vzc",
        "--model",
        small_model,
        "--search",
        0,
    )
    assert "--overwrite" in vizcomp(*arguments, code=2).err
    assert (tmp_path / "set.vzc").read_bytes() == b"mine"
    vizcomp(*arguments, "--dry-run")
    assert (tmp_path / "set.vzc").read_bytes() == b"mine"
    (classes / "cat" / "bad.png").write_bytes(b"")
    Image.fromarray(cat).save(classes / "dog" / "large.png")
    done = vizcomp(*arguments, "--overwrite", "--json", code=1)
    assert len(VzcPack(tmp_path / "set.vzc", model=small_model)) == 30
    assert {n for n, r in done.rows().items() if r["status"] == "failed"} == {
        "bad.png",
        "large.png",
    }


def test_interrupted_packs_do_not_pass_for_whole(
    classes: Path, tmp_path: Path, small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(groups, "GROUP", 8)
    work = encode_some
    calls: list[int] = []

    def interrupted(task: EncodeTask) -> list[Outcome[CodecRecord]]:
        calls.append(1)
        if len(calls) == 2:
            signal.raise_signal(signal.SIGINT)
        return work(task)

    monkeypatch.setattr(encode_pack, "encode_some", interrupted)
    files = find_inputs([classes])
    settings = EncodeSettings(model=str(small_model), search=0)
    run = run_encode_pack(files, tmp_path / "set.vzc", settings, options=RunOptions(jobs=1))
    assert run.exit_code == 130
    assert not (tmp_path / "set.vzc").exists()
    assert run.pack == tmp_path / "set.partial.vzc"
    assert len(VzcPack(run.pack, model=small_model)) == 16  # what was in hand is finished
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    monkeypatch.setattr(encode_pack, "encode_some", work)
    whole = run_encode_pack(
        find_inputs([classes]), tmp_path / "whole.vzc", settings, options=RunOptions(jobs=1)
    )
    files = find_inputs([classes])
    resumed = run_encode_pack(
        files,
        tmp_path / "set.vzc",
        dataclasses.replace(settings, resume=True),
        options=RunOptions(jobs=1),
    )
    assert (tmp_path / "set.vzc").read_bytes() == (tmp_path / "whole.vzc").read_bytes()
    # those 16 were not coded again
    assert [r.seconds for r in resumed.records][:16] == [r.seconds for r in run.records]
    assert (resumed.exit_code, whole.exit_code) == (0, 0)


# --- info
# --------------------------------------------------------------------------------------------------


def test_info_of_a_file(vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path) -> None:
    vizcomp("encode", folder / "cat.png", "-o", "cat.vzc", "--model", any_model)
    data = (tmp_path / "cat.vzc").read_bytes()
    found = vizcomp("info", "cat.vzc", "--json", "--model", any_model).report
    header = vzc.read_header(data)
    assert found["model"] == header.model.hex()
    assert found["model_found"] == str(any_model)
    assert (found["width"], found["height"], found["grey"]) == (451, 300, False)
    assert found["file_bytes"] == found["expected_bytes"] == len(data)
    assert found["overhead_bytes"] == header.overhead
    assert [each["payload_bytes"] for each in found["iterations"]] == list(header.lengths)
    assert [each["check"] for each in found["iterations"]] == ["ok"] * 3
    assert found["iterations"][-1]["total_bytes"] == len(data)
    assert (
        found["iterations"][-1]["bpp"]
        == pytest.approx(8 * len(data) / (300 * 451))
        == pytest.approx(found["bpp"])
    )
    said = vizcomp("info", "cat.vzc").out
    for words in (
        "451x300",
        header.model.hex(),
        "not on this machine",
        f"{len(data)} bytes",
        "all checksums match",
    ):
        assert words in said
    models = Path(os.environ["VIZCOMP_CACHE"]) / "models"
    models.mkdir(parents=True)
    (models / "mine.safetensors").write_bytes(any_model.read_bytes())
    assert "mine.safetensors" in vizcomp("info", "cat.vzc").out


def test_info_of_a_folder_names_a_file_in_it(
    vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path
) -> None:
    vizcomp("encode", folder / "cat.png", "-o", "small/cat.vzc", "--model", any_model)
    said = vizcomp("info", "small", code=2).err
    assert "small is a folder" in said
    assert "small/cat.vzc" in said


def test_info_names_what_is_damaged(
    vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path
) -> None:
    vizcomp("encode", folder / "cat.png", "-o", "cat.vzc", "--model", any_model)
    data = (tmp_path / "cat.vzc").read_bytes()
    at = vzc.read_header(data).offsets[1]
    (tmp_path / "bad.vzc").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    done = vizcomp("info", "bad.vzc", code=1)
    assert "problem: the checksum of iteration 2 does not match" in done.out
    checks = vizcomp("info", "bad.vzc", "--json", code=1).report["iterations"]
    assert [each["check"] for each in checks] == ["ok", "damaged", "ok"]
    (tmp_path / "cut.vzc").write_bytes(data[: at + 5])
    done = vizcomp("info", "cut.vzc", code=1)
    assert "cut off: 1 of 3 iterations" in done.out
    (tmp_path / "long.vzc").write_bytes(data + b"xyz")
    assert "3 bytes follow" in vizcomp("info", "long.vzc", code=1).out
    (tmp_path / "head.vzc").write_bytes(data[:6])
    for name, code, words in (
        ("head.vzc", 1, "ends within its header"),
        (folder / "cat.png", 1, "looks like a PNG"),
        ("nowhere.vzc", 2, "does not exist"),
        (folder, 2, "is a folder"),
    ):
        done = vizcomp("info", name, code=code)
        assert words in done.err
        assert str(name) in done.err


def test_info_of_a_pack(vizcomp: Command, classes: Path, tmp_path: Path, small_model: Path) -> None:
    vizcomp("encode", "--pack", classes, "-o", "set.vzc", "--model", small_model, "--search", 0)
    found = vizcomp("info", "set.vzc", "--json").report
    size = (tmp_path / "set.vzc").stat().st_size
    assert (found["kind"], found["images"], found["readable"], found["named"], found["grey"]) == (
        "pack",
        30,
        30,
        30,
        1,
    )
    assert found["classes"] == {"cat": 15, "dog": 15}
    assert (found["sizes"], found["iterations"]) == ({"32x32": 30}, {"3": 30})
    assert found["bytes_per_image"] == pytest.approx(size / 30)
    assert found["bpp"] == pytest.approx(8 * size / (30 * 1024))
    said = vizcomp("info", "set.vzc").out
    assert "cat (15), dog (15)" in said
    assert "all checksums match" in said


def test_info_and_help_load_no_framework(
    vizcomp: Command, folder: Path, tmp_path: Path, any_model: Path
) -> None:
    vizcomp("encode", folder / "cat.png", "-o", "cat.vzc", "--model", any_model)
    code = f"""
import sys
sys.argv = ["vizcomp", "info", "cat.vzc", "--model", {str(any_model)!r}]
try:
    from vizcomp.cli import main; main()
except SystemExit as left:
    assert not left.code
print("loaded:", [m for m in ("torch", "onnxruntime", "scipy") if m in sys.modules])"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
        env=ENVIRONMENT,
    )
    assert done.stdout.rstrip().endswith("loaded: []")
    assert str(any_model) in done.stdout


def test_a_pack_that_was_cut_off_gives_its_whole_blocks(
    vizcomp: Command, tmp_path: Path, small_model: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i in range(70):
        Image.fromarray(np.full((32, 32, 3), 3 * i, np.uint8)).save(tmp_path / "in" / f"{i:02}.png")
    vizcomp(
        "encode",
        "--pack",
        "in",
        "-o",
        "set.vzc",
        "--model",
        small_model,
        "--search",
        0,
        "--with-model",
    )
    whole = (tmp_path / "set.vzc").read_bytes()
    (tmp_path / "cut.vzc").write_bytes(whole[:-60])
    row = json.loads(vizcomp("info", "cut.vzc", "--json", code=1).out)
    assert (row["images"], row["model_found"]) == (64, "the pack itself")
    assert "64 images of whole blocks are left" in " ".join(row["problems"])
    # no --model: it is in the pack
    done = vizcomp("decode", "cut.vzc", "-o", "out", "--json", code=1)
    (row,) = done.report["files"]
    assert (row["status"], row["images"]) == ("partial", 64)
    assert "64 images of whole blocks are left" in row["error"]
    assert len(list((tmp_path / "out").rglob("*.png"))) == 64
    vizcomp("decode", "set.vzc", "-o", "all")
    first = next((tmp_path / "out").rglob("05.png"))
    assert first.read_bytes() == next((tmp_path / "all").rglob("05.png")).read_bytes()
    for flag in ("--with-model", "--no-names"):
        told = vizcomp("encode", "in", flag, "--model", small_model, code=2).err
        assert f"{flag} goes with --pack" in told


def test_a_model_in_a_pack_must_be_its_own(small_model: Path, tmp_path: Path) -> None:
    from vizcomp.errors import ModelError
    from vizcomp.vzc.packs import PackWriter

    out = PackWriter(model=b"none", model_file=small_model.read_bytes())
    with pytest.raises(ModelError, match="not the one that wrote it"):
        VzcPack(out.finish())
    with pytest.raises(ModelError):
        VzcPack(PackWriter(model=b"none", model_file=b"rubbish").finish())
