"""Photos and results in object storage: a real S3 server on loopback, with requests that fail."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vizcomp.batch.djpeg import BatchRun, run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.cli import app
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import InputError, MissingExtraError, OutputError, SettingsError
from vizcomp.files import store
from vizcomp.files.find import InputFile, expanded, find_inputs
from vizcomp.files.names import OutputNames
from vizcomp.files.store import StorePath, _advanced, _system, is_url, parse_place
from vizcomp.files.write import check_output_folder, write_atomic
from vizcomp.photos.photo import load


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("s3://b/a.jpg", "a.jpg"),
        ("s3://b", ""),
        ("s3://b/", ""),
        ("s3://b/p/", "p/"),
        ("s3://b/p//q", "p//q"),
        ("S3://b/x", "x"),
    ],
)
def test_names_of_places(text: str, key: str) -> None:
    place = parse_place(text)
    assert isinstance(place, StorePath)
    assert (place.scheme, place.bucket, place.key) == ("s3", "b", key)


def test_local_names_are_paths() -> None:
    assert parse_place("a/b.jpg") == Path("a/b.jpg")
    assert parse_place("file:///a/b.jpg") == Path("/a/b.jpg")
    assert not is_url("a:b/c")


@pytest.mark.parametrize(
    "text", ["http://host/a.jpg", "s3://", "s3:///key", "file://host/a", "s3://../x"]
)
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(SettingsError):
        parse_place(text)


def test_a_local_run_imports_no_library_of_stores(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save(tmp_path / "a.png")
    arguments = [
        "djpeg",
        str(tmp_path / "a.png"),
        "-o",
        f"file://{tmp_path}/out",
        "--guide",
        "uniform",
    ]
    code = f"import sys; sys.argv = ['vizcomp', *{arguments!r}]\n"
    code += "from vizcomp.cli import main\ntry: main()\nexcept SystemExit: pass\n"
    code += "print([m for m in ('fsspec', 's3fs', 'boto3', 'ray') if m in sys.modules])"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert out.rstrip().endswith("[]")
    assert (tmp_path / "out" / "a.png").exists()  # kept: it is smaller than any JPEG


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fsspec", None)
    _system.cache_clear()
    with pytest.raises(MissingExtraError) as error:
        list(find_inputs(["s3://b/a.jpg"]))
    assert error.value.hint == "pip install 'vizcomp[s3]'"
    found = CliRunner().invoke(app, ["djpeg", "gs://b/a.jpg", "-o", "out"])
    assert isinstance(found.exception, MissingExtraError)
    assert found.exception.hint == "pip install 'vizcomp[gs]'"


@pytest.mark.parametrize(
    ("parts", "name", "left"),
    [
        (("*.jpg",), "a.jpg", [()]),
        (("*.jpg",), "a.png", []),
        (("*",), ".hidden", []),
        (("**", "*.jpg"), "a.jpg", [("**", "*.jpg"), ()]),
        (("**", "x", "y"), "x", [("**", "x", "y"), ("y",)]),
    ],
)
def test_patterns(parts: tuple[str, ...], name: str, left: list[tuple[str, ...]]) -> None:
    assert list(_advanced(parts, name)) == left


# --- a server
# --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Any, str]]:
    from object_store import serve

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    running, faults, address = serve()
    yield faults, address
    running.shutdown()


@pytest.fixture
def bucket(
    server: tuple[Any, str], monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> Iterator[StorePath]:
    faults, address = server
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    _system.cache_clear()
    faults.share, faults.seen, faults.failed = 0.0, [], {}
    name = f"b{abs(hash(request.node.name)) % 10**9}"
    _system("s3").call_s3("create_bucket", Bucket=name)
    yield StorePath("s3", name, "")
    faults.share = 0.0
    _system.cache_clear()


def photo(seed: int, side: int = 48) -> bytes:
    import io

    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 255, (side, side, 3), np.uint8)  # noise: any JPEG is smaller
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def keys(place: StorePath) -> dict[str, bytes]:
    """All objects below, hidden ones too."""
    found = {}
    stack = [place]
    while stack:
        for each, is_dir in stack.pop().list():
            if is_dir:
                stack.append(each)
            else:
                found[each.key] = each.read_bytes()
    return found


def compress(bucket: StorePath, **settings: Any) -> BatchRun:
    target = bucket / "out"
    files = find_inputs([str(bucket / "in")], exclude=target)
    return run_djpeg(
        files,
        target,
        DjpegSettings(guide="uniform"),
        BatchSettings(**settings),
        options=RunOptions(jobs=1),
    )


def local(tmp_path: Path, names: list[str], data: list[bytes]) -> dict[str, bytes]:
    for name, each in zip(names, data, strict=True):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(each)
    out = tmp_path / "out"
    run_djpeg(
        find_inputs([str(tmp_path / "in")]),
        out,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    return {f"out/{p.relative_to(out)}": p.read_bytes() for p in out.rglob("*") if p.is_file()}


def test_s3_gives_what_the_disk_gives(bucket: StorePath, tmp_path: Path) -> None:
    names = ["b.png", "a.png", "sub/a.png", "sub/deep/c.png", "a.jpg"]
    data = [photo(i) for i in range(len(names))]
    for name, each in zip(names, data, strict=True):
        (bucket / "in" / name).write_bytes(each)
    (bucket / "in" / ".hidden.png").write_bytes(photo(9))
    (bucket / "in" / "words.txt").write_bytes(b"no photo")
    run = compress(bucket)
    assert [r.status for r in run.records] == ["ok"] * 5
    assert [PurePosixPath(r.input).name for r in run.records] == [
        "a.jpg",
        "a.png",
        "b.png",
        "a.png",
        "c.png",
    ]
    written = {k: v for k, v in keys(bucket).items() if k.startswith("out/")}
    assert written == local(tmp_path, names, data)
    assert run.records[0].output == f"s3://{bucket.bucket}/out/a.jpg"


def test_what_exists_is_skipped_and_resume_does_the_rest(
    bucket: StorePath, server: tuple[Any, str]
) -> None:
    for i in range(4):
        (bucket / "in" / f"{i}.png").write_bytes(photo(i))
    (bucket / "out" / "3.jpg").write_bytes(b"mine")
    first = compress(bucket)
    assert [r.status for r in first.records] == ["ok", "ok", "ok", "skipped"]
    (bucket / "in" / "1.png").write_bytes(photo(100))  # other content
    system = _system("s3")
    system.rm_file(f"{bucket.bucket}/out/2.jpg")  # gone
    before = keys(bucket)
    faults = server[0]
    faults.seen.clear()
    again = compress(bucket, resume=True)
    assert [r.status for r in again.records] == ["ok", "ok", "ok", "skipped"]
    puts = [path for method, path in faults.seen if method == "PUT"]
    assert sorted(PurePosixPath(p).name for p in puts) == ["1.jpg", "2.jpg"]
    after = keys(bucket)
    assert after["out/3.jpg"] == b"mine"
    assert after["out/0.jpg"] == before["out/0.jpg"]
    assert after["out/1.jpg"] != before["out/1.jpg"]


def test_odd_keys(bucket: StorePath, tmp_path: Path) -> None:
    odd = [
        "in//double.png",
        "in/sp ace+%41?#.png",
        "in/ünï.png",
        "in/ta\tb.png",
        "in/-rf.png",
        "in/a:b\\c.png",
    ]
    for i, key in enumerate(odd):
        StorePath("s3", bucket.bucket, key).write_bytes(photo(i))
    StorePath("s3", bucket.bucket, "in/folder/").write_bytes(b"")  # a marker
    found = list(find_inputs([str(bucket / "in")]))
    assert {f.path.key for f in found if isinstance(f.path, StorePath)} == set(odd)
    assert all("\t" not in f.shown for f in found)
    out = tmp_path / "out"
    run = run_djpeg(
        iter(found),
        out,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    assert [r.status for r in run.records] == ["ok"] * len(odd)
    written = [p.relative_to(tmp_path) for p in tmp_path.rglob("*.jpg")]
    assert len(written) == len(odd)
    assert all(p.parts[0] == "out" and ".." not in p.parts for p in written)


def test_keys_that_climb_stay_below_the_output(bucket: StorePath, tmp_path: Path) -> None:
    # no server of ours takes such a key; others do
    relative = PurePosixPath("../../../etc/./up.png")
    file = InputFile(StorePath("s3", bucket.bucket, "in/../../../etc/./up.png"), relative)
    assert str(file.path).endswith("/in/../../../etc/./up.png")
    assert OutputNames(bucket / "out").path_for(file) == bucket / "out" / "etc/up.jpg"
    assert OutputNames(tmp_path / "out").path_for(file) == tmp_path / "out" / "etc/up.jpg"


def test_patterns_and_single_objects(bucket: StorePath) -> None:
    for key in ("p/a.jpg", "p/b.png", "p/q/a.jpg", "p/q/r/a.jpg", "p/.h/a.jpg", "p/[x].jpg"):
        StorePath("s3", bucket.bucket, key).write_bytes(photo(0))

    def names(pattern: str) -> list[str]:
        return [str(f.relative) for f in find_inputs([f"{bucket}{pattern}"])]

    assert names("p/*.jpg") == ["[x].jpg", "a.jpg"]
    assert names("p/**/a.jpg") == ["a.jpg", "q/a.jpg", "q/r/a.jpg"]
    assert names("p/*/a.jpg") == ["q/a.jpg"]
    assert names("p/[x].jpg") == ["[x].jpg"]  # what exists is no pattern
    assert names("p/q") == ["a.jpg", "r/a.jpg"]
    assert names("p/q/a.jpg") == ["a.jpg"]
    for nothing in ("p/c.jpg", "nowhere", "p/*.gif"):
        with pytest.raises(InputError):
            names(nothing)


def test_many_pages(bucket: StorePath, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "PAGE", 3)
    for i in range(11):
        (bucket / "in" / f"{i:02}.jpg").write_bytes(b"x")
        (bucket / "in" / f"{i:02}" / "a.jpg").write_bytes(b"x")
    found = [str(f.relative) for f in find_inputs([str(bucket / "in")])]
    assert found == [f"{i:02}.jpg" for i in range(11)] + [f"{i:02}/a.jpg" for i in range(11)]


def test_requests_that_fail_are_repeated(
    bucket: StorePath, server: tuple[Any, str], tmp_path: Path
) -> None:
    names = [f"{i}.png" for i in range(12)]
    data = [photo(i) for i in range(12)]
    for name, each in zip(names, data, strict=True):
        (bucket / "in" / name).write_bytes(each)
    faults = server[0]
    faults.random.seed(3)
    faults.share = 0.25
    run = compress(bucket)
    faults.share = 0.0
    assert sum(faults.failed.values()) >= 5
    assert [r.status for r in run.records] == ["ok"] * 12
    assert {k: v for k, v in keys(bucket).items() if k.startswith("out/")} == local(
        tmp_path, names, data
    )


def test_a_store_that_refuses_all_writes_costs_records_and_leaves_nothing(
    bucket: StorePath, server: tuple[Any, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(2):
        (bucket / "in" / f"{i}.png").write_bytes(photo(i))
    monkeypatch.setattr(store, "RETRIES", 2)
    _system.cache_clear()
    faults = server[0]
    faults.kinds, real = ("500",), faults.__call__
    files = list(find_inputs([str(bucket / "in")]))
    target = bucket / "out"
    names = OutputNames(target)
    [names.path_for(f) for f in files]  # lists while the store still answers
    faults.share = 1.0
    for file in files:
        with pytest.raises(OutputError, match="cannot be written"):
            write_atomic(names.path_for(file), b"data")
        with pytest.raises(InputError):
            load(file.path)
    faults.share = 0.0
    faults.kinds = ("500", "503", "slow", "cut", "lost")
    assert real is not None
    assert set(keys(bucket)) == {"in/0.png", "in/1.png"}


def test_a_bucket_that_is_not_there(bucket: StorePath) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        check_output_folder(StorePath("s3", "no-such-bucket", "out"))
    with pytest.raises(InputError):
        list(find_inputs(["s3://no-such-bucket/in"]))


def test_nobody_listens(monkeypatch: pytest.MonkeyPatch, bucket: StorePath) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setattr(store, "RETRIES", 2)
    _system.cache_clear()
    with pytest.raises(InputError, match="cannot be read"):
        list(find_inputs(["s3://b/in"]))


def test_the_commands(bucket: StorePath, tmp_path: Path, any_model: Path) -> None:
    for i in range(2):
        (bucket / "in" / f"{i}.png").write_bytes(photo(i))
    run = lambda *arguments: CliRunner().invoke(  # noqa: E731
        app, [str(a) for a in arguments], catch_exceptions=False
    )
    found = run(
        "djpeg", f"{bucket}in", "-o", f"{bucket}out", "--guide", "uniform", "-j", 1, "--quiet"
    )
    assert found.exit_code == 0, found.output
    report = json.loads((bucket / "out" / "report.json").read_bytes())
    assert [f["status"] for f in report["files"]] == ["ok", "ok"]
    assert (bucket / "out" / "report.html").exists()
    assert run("depth", f"{bucket}in", "-o", f"{bucket}maps", "-j", 1).exit_code == 0
    # beside the photos
    assert run("encode", f"{bucket}in", "--model", any_model, "-j", 1).exit_code == 0
    assert (
        run("decode", f"{bucket}in", "-o", f"{bucket}back", "--model", any_model, "-j", 1).exit_code
        == 0
    )
    assert (
        run(
            "encode",
            f"{bucket}in",
            "-o",
            f"{bucket}set.vzc",
            "--pack",
            "--model",
            any_model,
            "-j",
            1,
        ).exit_code
        == 0
    )
    assert (
        run("decode", f"{bucket}set.vzc", "-o", tmp_path, "--model", any_model, "-j", 1).exit_code
        == 0
    )
    assert sorted(p.name for p in (tmp_path / "set").iterdir()) == ["0.png", "1.png"]
    expected = {
        "in/0.vzc",
        "in/1.vzc",
        "maps/0.depth.png",
        "maps/1.depth.png",
        "back/0.png",
        "back/1.png",
        "set.vzc",
    }
    assert expected <= set(keys(bucket))


def packed(photos: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in photos.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return out.getvalue()


def table(photos: list[bytes]) -> bytes:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    rows = [{"bytes": data, "path": f"{number}.png"} for number, data in enumerate(photos)]
    out = io.BytesIO()
    columns = {"image": rows, "label": list(range(len(rows)))}
    pyarrow.parquet.write_table(arrow.table(columns), out)
    return out.getvalue()


@pytest.mark.parametrize("share", [0.0, 0.15])
def test_shards_go_from_bucket_to_bucket(
    bucket: StorePath, server: tuple[Any, str], tmp_path: Path, share: float
) -> None:
    shards = {
        "0.tar": packed({"a.png": photo(1), "a.json": b"{}", "b.png": photo(2)}),
        "1.tar": packed({"c.png": photo(3)}),
        "t.parquet": table([photo(4), photo(5)]),
    }
    (tmp_path / "in").mkdir()
    for name, data in shards.items():
        (bucket / "in" / name).write_bytes(data)
        (tmp_path / "in" / name).write_bytes(data)

    def compressed(source: str, target: Any, **more: Any) -> BatchRun:
        named = [*expanded(f"{source}/in/{{0..1}}.tar"), f"{source}/in/t.parquet"]
        files = find_inputs(named)
        asked = DjpegSettings(guide="uniform")
        return run_djpeg(files, target, asked, BatchSettings(**more), options=RunOptions(jobs=1))

    server[0].share = share
    run = compressed(f"s3://{bucket.bucket}", bucket / "out")
    assert [record.status for record in run.records] == ["ok"] * 5, run.records
    assert run.records[0].output == f"s3://{bucket.bucket}/out/0.tar::a.png"
    server[0].share = 0.0
    compressed(str(tmp_path), tmp_path / "out")
    for name in shards:
        ours = (bucket / "out" / name).read_bytes()
        assert ours == (tmp_path / "out" / name).read_bytes()
    server[0].seen.clear()
    again = compressed(f"s3://{bucket.bucket}", bucket / "out", resume=True)
    assert [record.status for record in again.records] == ["ok"] * 5
    assert not [path for method, path in server[0].seen if method == "PUT"]


def test_a_shard_that_is_gone_or_broken_costs_itself(bucket: StorePath) -> None:
    (bucket / "in" / "cut.tar").write_bytes(packed({"a.png": photo(1), "b.png": photo(2)})[:700])
    (bucket / "in" / "whole.tar").write_bytes(packed({"a.png": photo(1)}))
    files = find_inputs([str(bucket / "in/cut.tar"), str(bucket / "in/whole.tar")])
    run = run_djpeg(
        files,
        bucket / "out",
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    assert [record.status for record in run.records][-1] == "ok"
    assert {record.status for record in list(run.records)[:-1]} == {"failed"}
    assert [key for key in keys(bucket) if key.startswith("out/")] == ["out/whole.tar"]
