"""Data sets that would take all time or memory: refused early, in proportion to the file's size."""

from __future__ import annotations

import gzip
import io
import pickle
import tarfile
import tracemalloc
from pathlib import Path

import pytest
from kit import processor_seconds
from PIL import Image

from vizcomp.datasets import archive, pickles
from vizcomp.datasets.read import read_labelled
from vizcomp.errors import FormatError

TEXT = 1 << 20


def amplified(call: bytes, count: int = 4000) -> bytes:
    """A pickle that puts a text of 1 MB into the memo and uses it again and again."""
    text = b"X" + TEXT.to_bytes(4, "little") + b"a" * TEXT + b"q\x00"
    return b"\x80\x02" + text + b"}(" + call * count + b"u."


ENCODED = b"K\x01c_codecs\nencode\nh\x00X\x06\x00\x00\x00latin1\x86R"
# a key of bytes becomes text; each in a dict of its own
KEYED = b"K\x01}h\x00K\x01s"
BUILT = (
    b"K\x01cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n\x85R"
    b"(K\x01J\x00\x00\x10\x00\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89h\x00tb"
)


@pytest.mark.parametrize("call", [ENCODED, BUILT, KEYED], ids=["encoded", "built", "keyed"])
def test_a_pickle_that_copies_one_text_again_and_again_is_refused(call: bytes) -> None:
    data = amplified(call)
    if call is KEYED:
        data = data.replace(b"X" + TEXT.to_bytes(4, "little"), b"B" + TEXT.to_bytes(4, "little"), 1)
    tracemalloc.start()
    try:
        with processor_seconds(10), pytest.raises(FormatError):
            pickles.unpickled(data, "a batch")
        assert tracemalloc.get_traced_memory()[1] < 12 * TEXT
    finally:
        tracemalloc.stop()


def test_a_pickle_of_texts_of_its_own_is_read() -> None:
    batch = {b"data": bytes(range(256)) * 512, b"more": ["é" * 1000] * 500}
    assert pickles.unpickled(pickle.dumps(batch, 2), "a batch")["data"] == batch[b"data"]


def pictures_in_classes(count: int) -> bytes:
    """A tar with one picture in each of so many classes."""
    out, inside = io.BytesIO(), io.BytesIO()
    Image.new("RGB", (8, 8)).save(inside, "PNG")
    with tarfile.open(fileobj=out, mode="w") as packed:
        for number in range(count):
            member = tarfile.TarInfo(f"c{number:06}/a.png")
            member.size = len(inside.getvalue())
            packed.addfile(member, io.BytesIO(inside.getvalue()))
    return out.getvalue()


class CountedNames(list[str]):
    """Names whose search from the front is counted."""

    searches = 0

    def __contains__(self, name: object) -> bool:
        type(self).searches += 1
        return super().__contains__(name)


def test_class_folders_take_time_in_proportion_to_their_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "data.tar"
    path.write_bytes(pictures_in_classes(300))
    folders = archive._Archive.folders
    monkeypatch.setattr(
        archive._Archive, "folders", lambda self, at: CountedNames(folders(self, at))
    )
    data = read_labelled(path, size=8)
    assert len(data.classes) == 300
    assert CountedNames.searches < 100


def pax(body: bytes, kind: bytes = tarfile.XHDTYPE, *, last: bool = True) -> bytes:
    """A header of records in the PAX format, and after it an empty file."""
    header = tarfile.TarInfo("h")
    header.type, header.size = kind, len(body)
    after = tarfile.TarInfo("cat/1.png").tobuf(tarfile.USTAR_FORMAT) if last else b""
    return header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512) + after


def sparse_chain(blocks: int) -> bytes:
    """The header of a file with holes, whose list of parts goes on for many blocks."""
    header = tarfile.TarInfo("cat/1.png")
    header.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(header.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    part = (b"00000000001\0" * 2) * 21
    return bytes(block) + (part + b"\1" + bytes(7)) * blocks


def global_keys() -> bytes:
    record = b"".join(b"%d k%07d=v\n" % (14, n) for n in range(4000))
    return pax(record, tarfile.XGLTYPE) + pax(b"12 path=c/a\n") * 20


@pytest.mark.parametrize(
    "content",
    [
        pax(b"1" * (4 << 20)),
        pax(b"1" * 60_000) * 40,
        pax(b"x" * (2 << 20)),
        sparse_chain(20_000),
        global_keys(),
    ],
    ids=[
        "digits",
        "digits in many headers",
        "a long header",
        "parts without end",
        "keys for all files",
    ],
)
def test_a_tar_header_that_would_take_all_time_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "data.tar.gz"
    path.write_bytes(gzip.compress(content + bytes(1024)))
    with processor_seconds(20), pytest.raises(FormatError):
        read_labelled(path)


def test_a_tar_with_long_names_and_notes_is_read(tmp_path: Path) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as packed:
        for number in range(20):
            name = f"{'cat' if number % 2 else 'dog'}/{'7' * 180}{number}.png"
            member = tarfile.TarInfo(name)
            member.pax_headers = {"LIBARCHIVE.xattr.a": "1" * 200, "comment": "x" * 30_000}
            picture = io.BytesIO()
            Image.new("RGB", (8, 8)).save(picture, "PNG")
            member.size = len(picture.getvalue())
            packed.addfile(member, io.BytesIO(picture.getvalue()))
    (tmp_path / "data.tar").write_bytes(out.getvalue())
    assert len(read_labelled(tmp_path / "data.tar", size=8)) == 20
