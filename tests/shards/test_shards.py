"""Shards: photos in tar files and in Parquet tables, compressed in their place, all else as it
was."""

from __future__ import annotations

import contextlib
import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import command
from PIL import Image

import vizcomp
from vizcomp.errors import FormatError, InputError
from vizcomp.files.find import expanded, find_inputs, names_from
from vizcomp.report.djpeg import DjpegReport
from vizcomp.shards.open import open_shard

PLAIN: dict[str, Any] = {"guide": "uniform", "table": "photo", "report": False}


def photo(seed: int = 0, kind: str = "JPEG", **options: Any) -> bytes:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:40, :56]
    base = np.stack([128 + 90 * np.sin(x / (9 + c)) * np.cos(y / (7 + c)) for c in range(3)], -1)
    buffer = io.BytesIO()
    pixels = np.clip(base + rng.normal(0, 6, base.shape), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(
        buffer, kind, **({"quality": 95} if kind == "JPEG" else {}), **options
    )
    return buffer.getvalue()


def packed(
    path: Path, members: list[tuple[str, bytes]], *, form: int = tarfile.PAX_FORMAT, **about: Any
) -> None:
    with tarfile.open(path, "w", format=form) as tar:
        for name, data in members:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = len(data), 1_600_000_000, 0o640
            member.uid, member.gid, member.uname, member.gname = 1234, 99, "ann", "staff"
            member.pax_headers = dict(about)
            tar.addfile(member, io.BytesIO(data))


def unpacked(path: Path) -> dict[str, bytes]:
    with tarfile.open(path) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]


def run(shard: Path, out: Path, **options: Any) -> DjpegReport:
    return vizcomp.compress_files(shard, out, **{**PLAIN, **options})


LONG = "folder/" + "n" * 120


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("long", [False, True])
def test_a_tar_keeps_all_but_its_photos(tmp_path: Path, form: int, long: bool) -> None:
    stem = (LONG if form != tarfile.USTAR_FORMAT else "d/" * 40 + "n" * 60) if long else "0001"
    members = [
        (f"{stem}.jpg", photo(1)),
        (f"{stem}.json", b'{"label": 3}'),
        (f"{stem}.seg.png", photo(2, "PNG")),
        ("0002.png", photo(3, "PNG")),
        ("0002.cls", b"7"),
    ]
    packed(tmp_path / "a.tar", members, form=form)
    report = run(tmp_path / "a.tar", tmp_path / "out")
    assert [(r.input.partition("::")[2], r.status) for r in report.files] == [
        (f"{stem}.jpg", "ok"),
        ("0002.png", "ok"),
    ]
    assert report.files[1].output == f"{tmp_path / 'out' / 'a.tar'}::0002.png"
    before, after = unpacked(tmp_path / "a.tar"), unpacked(tmp_path / "out" / "a.tar")
    assert list(after) == [name.replace("0002.png", "0002.jpg") for name in before]
    for name in (f"{stem}.json", f"{stem}.seg.png", "0002.cls"):
        assert after[name] == before[name]
    for name, source in ((f"{stem}.jpg", f"{stem}.jpg"), ("0002.jpg", "0002.png")):
        assert after[name] == vizcomp.compress(before[source], guide="uniform", table="photo").data
    with tarfile.open(tmp_path / "a.tar") as one, tarfile.open(tmp_path / "out" / "a.tar") as other:
        for a, b in zip(one, other, strict=True):
            assert (a.mtime, a.mode, a.uid, a.gid, a.uname, a.gname) == (
                b.mtime,
                b.mode,
                b.uid,
                b.gid,
                b.uname,
                b.gname,
            )
    assert (tmp_path / "out" / "a.tar").stat().st_size % tarfile.RECORDSIZE == 0


def test_nothing_to_gain_is_the_same_archive_byte_for_byte(tmp_path: Path) -> None:
    small = vizcomp.compress(photo(), quality=5, guide="uniform", table="photo").data
    packed(tmp_path / "a.tar", [("1.jpg", small), ("1.txt", b"x" * 700)])
    report = run(tmp_path / "a.tar", tmp_path / "out", quality=95, metadata="all")
    assert [r.status for r in report.files] == ["kept"]
    assert (tmp_path / "out" / "a.tar").read_bytes() == (tmp_path / "a.tar").read_bytes()


def test_posix_records_are_kept(tmp_path: Path) -> None:
    packed(tmp_path / "a.tar", [("1.png", photo(0, "PNG"))], comment="kept", atime="1600000000.5")
    run(tmp_path / "a.tar", tmp_path / "out")
    with tarfile.open(tmp_path / "out" / "a.tar") as tar:
        (member,) = tar.getmembers()
    assert member.name == "1.jpg"
    assert (member.pax_headers["comment"], member.pax_headers["atime"]) == ("kept", "1600000000.5")


def test_what_must_stay_stays_and_is_told(tmp_path: Path) -> None:
    members = [
        ("1.jpg", photo(1)),
        ("1.png", photo(2, "PNG")),  # a mask, most likely
        ("2.jpg", b"no photo at all"),
        ("3.jpg", photo(3)[:300]),
        ("/abs/4.jpg", photo(4)),
        ("../5.jpg", photo(5)),
    ]
    packed(tmp_path / "a.tar", members)
    with tarfile.open(tmp_path / "a.tar", "a") as tar:
        link = tarfile.TarInfo("6.jpg")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    report = run(tmp_path / "a.tar", tmp_path / "out")
    found = {r.input.partition("::")[2]: r for r in report.files}
    assert {name: r.status for name, r in found.items()} == {
        "1.jpg": "ok",
        "1.png": "skipped",
        "2.jpg": "failed",
        "3.jpg": "failed",
        "/abs/4.jpg": "ok",
        "../5.jpg": "ok",
    }
    assert "holds 1.jpg already" in (found["1.png"].error or "")
    before, after = unpacked(tmp_path / "a.tar"), unpacked(tmp_path / "out" / "a.tar")
    assert list(before) == list(after)
    for name in ("1.png", "2.jpg", "3.jpg"):
        assert after[name] == before[name]
    with tarfile.open(tmp_path / "out" / "a.tar") as tar:
        assert tar.getmember("6.jpg").linkname == "/etc/passwd"
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.tar"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\x1f\x8b" + bytes(600), "compressed as a whole"),
        (b"x" * 2000, "is no tar archive"),
        (None, "holds no photos"),
    ],
)
def test_shards_that_are_none(tmp_path: Path, data: bytes | None, words: str) -> None:
    path = tmp_path / "a.tar"
    if data is None:
        packed(path, [("a.json", b"{}")])
    else:
        path.write_bytes(data)
    report = run(path, tmp_path / "out")
    assert [r.status for r in report.files] == ["failed"]
    assert words in (report.files[0].error or "")
    assert not (tmp_path / "out" / "a.tar").exists()


def test_a_shard_that_is_cut_off(tmp_path: Path) -> None:
    packed(tmp_path / "whole.tar", [(f"{i}.jpg", photo(i)) for i in range(3)])
    data = (tmp_path / "whole.tar").read_bytes()
    for cut in (1500, 4000, 512 * 5):
        (tmp_path / "a.tar").write_bytes(data[:cut])
        report = run(tmp_path / "a.tar", tmp_path / "out")
        assert report.totals.failed == report.totals.files > 0
        assert not (tmp_path / "out" / "a.tar").exists()


def test_headers_without_end_are_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(header.tobuf(tarfile.PAX_FORMAT) + bytes(1 << 20))
    with pytest.raises(vizcomp.VizcompError):
        open_shard(tmp_path / "a.tar", "a.tar")


def test_named_fields(tmp_path: Path) -> None:
    packed(tmp_path / "a.tar", [("1.left.png", photo(1, "PNG")), ("1.jpg", photo(2))])
    report = run(tmp_path / "a.tar", tmp_path / "out")
    assert [r.input.partition("::")[2] for r in report.files] == ["1.jpg"]
    report = run(tmp_path / "a.tar", tmp_path / "left", fields=["left.png"])
    assert [r.input.partition("::")[2] for r in report.files] == ["1.left.png"]
    with contextlib.closing(open_shard(tmp_path / "a.tar", "a.tar", ("left.png",))) as shard:
        members = list(shard.members())
    assert [m.name for m in members] == ["1.left.png"]
    with pytest.raises(InputError, match="holds no photos"):
        open_shard(tmp_path / "a.tar", "a.tar", ("right.png",))


def test_fields_without_a_shard_are_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.jpg").write_bytes(photo())
    common = ["-o", tmp_path / "out", "--guide", "uniform", "--report", "none", "--fields", "jpg"]
    assert command("djpeg", tmp_path / "a.jpg", *common) == 0
    said = "--fields has no effect: no input is a .tar or .parquet file"
    assert said in capfd.readouterr().err
    packed(tmp_path / "a.tar", [("1.jpg", photo())])
    assert command("djpeg", tmp_path / "a.tar", *common) == 0
    assert said not in capfd.readouterr().err


def test_resume_is_by_shard_and_workers_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path / "cache"))
    for shard in range(2):
        packed(tmp_path / f"{shard:02}.tar", [(f"{i}.jpg", photo(i)) for i in range(7)])
    pattern = str(tmp_path / "{00..01}.tar")
    first = vizcomp.compress_files(pattern, tmp_path / "out", jobs=2, **PLAIN)
    assert [r.status for r in first.files] == ["ok"] * 14
    (tmp_path / "out" / "01.tar").unlink()
    done: list[str] = []
    again = vizcomp.compress_files(
        pattern,
        tmp_path / "out",
        jobs=1,
        resume=True,
        on_record=lambda r: done.append(r.input),
        **PLAIN,
    )
    assert [r.status for r in again.files] == ["ok"] * 14
    # remembered, not done again
    assert [r.seconds for r in again.files][:7] == [r.seconds for r in first.files][:7]
    assert [r.seconds for r in again.files][7:] != [r.seconds for r in first.files][7:]
    assert len(done) == 14
    alone = run(tmp_path / "00.tar", tmp_path / "alone", jobs=1)
    assert alone.totals.output_bytes * 2 == first.totals.output_bytes
    for name in ("00.tar", "01.tar"):
        assert (tmp_path / "out" / name).read_bytes() == (
            tmp_path / "alone" / "00.tar"
        ).read_bytes()


def test_photos_and_shards_in_one_run_keep_their_order(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(photo(1))
    packed(tmp_path / "b.tar", [("1.jpg", photo(2)), ("2.jpg", photo(3))])
    (tmp_path / "c.jpg").write_bytes(photo(4))
    names = [tmp_path / "a.jpg", tmp_path / "b.tar", tmp_path / "c.jpg"]
    report = vizcomp.compress_files(names, tmp_path / "out", **PLAIN)
    assert [r.input.rpartition("/")[2] for r in report.files] == [
        "a.jpg",
        "b.tar::1.jpg",
        "b.tar::2.jpg",
        "c.jpg",
    ]
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.jpg", "b.tar", "c.jpg"]


def test_a_disk_that_does_not_take_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vizcomp.batch import shards

    def full(*arguments: Any, **options: Any) -> None:
        raise vizcomp.errors.OutputError("no space left on the disk", "free some")  # type: ignore[attr-defined]

    packed(tmp_path / "a.tar", [("1.jpg", photo(1)), ("2.jpg", photo(2))])
    monkeypatch.setattr(shards, "write_atomic", full)
    report = run(tmp_path / "a.tar", tmp_path / "out")
    assert [(r.status, r.output) for r in report.files] == [("failed", None)] * 2
    assert "no space left" in (report.files[0].error or "")
    assert list((tmp_path / "out").iterdir()) == []


# --- Parquet
# --------------------------------------------------------------------------------------------------


def table(path: Path, *, struct: bool = True, rows: int = 7, said: bool = True) -> Any:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    cells: list[Any] = [photo(i, "PNG") for i in range(rows)]
    cells[3] = None
    kind = pa.binary()
    if struct:
        kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        cells = [
            None if cell is None else {"bytes": cell, "path": f"{i}.png"}
            for i, cell in enumerate(cells)
        ]
    about = (
        {"huggingface": '{"info": {"features": {"image": {"_type": "Image"}}}}'}
        if said
        else {"mine": "yes"}
    )
    schema = pa.schema([("id", pa.int64()), ("image", kind), ("text", pa.string())], metadata=about)
    made = pa.table(
        {"id": list(range(rows)), "image": cells, "text": ["a", None, "b"] * 2 + ["c"]},
        schema=schema,
    )
    pq.write_table(
        made,
        path,
        row_group_size=3,
        compression={"id": "snappy", "image": "zstd", "text": "gzip"} if not struct else "zstd",
    )
    return made


@pytest.mark.parametrize("struct", [True, False])
def test_a_table_keeps_all_but_its_photos(tmp_path: Path, struct: bool) -> None:
    before = table(tmp_path / "a.parquet", struct=struct, said=struct)
    import pyarrow.parquet as pq

    report = run(tmp_path / "a.parquet", tmp_path / "out")
    assert [r.status for r in report.files] == ["ok"] * 3 + ["skipped"] + ["ok"] * 3
    assert report.files[0].input == f"{tmp_path / 'a.parquet'}::image[0]"
    file = pq.ParquetFile(tmp_path / "out" / "a.parquet")
    after = file.read()
    assert after.schema.equals(before.schema, check_metadata=True)
    assert after.column("id").equals(before.column("id"))
    assert after.column("text").equals(before.column("text"))
    source = pq.ParquetFile(tmp_path / "a.parquet").metadata
    groups = range(file.metadata.num_row_groups)
    assert (
        [file.metadata.row_group(k).num_rows for k in groups]
        == [source.row_group(k).num_rows for k in groups]
        == [3, 3, 1]
    )
    for column in range(source.num_columns):
        assert (
            file.metadata.row_group(0).column(column).compression
            == source.row_group(0).column(column).compression
        )
    for old, new in zip(
        before.column("image").to_pylist(), after.column("image").to_pylist(), strict=True
    ):
        assert (old is None) == (new is None)
        if old is not None and struct:
            assert new["path"] == old["path"].replace(".png", ".jpg")
        if old is not None:
            made = vizcomp.compress(
                old["bytes"] if struct else old, guide="uniform", table="photo"
            ).data
            assert (new["bytes"] if struct else new) == made


def test_a_table_without_photos_says_what_it_holds(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"a": [1], "b": [b"no photo"]}), tmp_path / "a.parquet")
    with pytest.raises(InputError, match="no column of photos"):
        open_shard(tmp_path / "a.parquet", "a.parquet")
    with pytest.raises(InputError, match="no column image"):
        open_shard(tmp_path / "a.parquet", "a.parquet", ("image",))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(FormatError, match="cannot be read as Parquet"):
        open_shard(tmp_path / "b.parquet", "b.parquet")


def test_datasets_reads_what_we_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    table(tmp_path / "a.parquet")
    run(tmp_path / "a.parquet", tmp_path / "out")
    read = datasets.Dataset.from_parquet(
        str(tmp_path / "out" / "a.parquet"), cache_dir=str(tmp_path / "hf")
    )
    assert read[0]["image"].size == (56, 40)
    assert read[0]["image"].format == "JPEG"
    assert read[3]["image"] is None


# --- names
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("a{00..02}.tar", ["a00.tar", "a01.tar", "a02.tar"]),
        ("a{8..11}", ["a8", "a9", "a10", "a11"]),
        ("{x,y}/{1..2}", ["x/1", "x/2", "y/1", "y/2"]),
        ("{2..0}", ["2", "1", "0"]),
        ("{a}", ["{a}"]),
        ("{}", ["{}"]),
        ("a{,b}", ["a", "ab"]),
    ],
)
def test_braces(pattern: str, names: list[str]) -> None:
    assert expanded(pattern) == names


def test_braces_without_end_are_refused() -> None:
    for pattern in ("{0..999999999}", "{0..999}{0..999}{0..999}"):
        with pytest.raises(InputError, match="stands for more than"):
            expanded(pattern)


def test_a_name_with_braces_that_exists_is_itself(tmp_path: Path) -> None:
    (tmp_path / "{1,2}.jpg").write_bytes(photo())
    assert [f.path.name for f in find_inputs([tmp_path / "{1,2}.jpg"])] == ["{1,2}.jpg"]
    with pytest.raises(InputError, match="does not exist"):
        find_inputs([tmp_path / "{3,4}.jpg"])


def test_lists_of_names() -> None:
    assert names_from(b"a.jpg\nb c.jpg\r\n\n\xff.jpg\n") == ["a.jpg", "b c.jpg", "\udcff.jpg"]
    assert names_from(b"a\nb.jpg\0c.jpg\0") == ["a\nb.jpg", "c.jpg"]
