"""`gs://` names: the way through fsspec, on a file system in memory in the place of gcsfs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import fsspec
import numpy as np
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.settings import BatchSettings
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.files.find import find_inputs
from vizcomp.files.store import _system, parse_place
from vizcomp.photos.encode import encode_plain_jpeg


class Bucket(MemoryFileSystem):
    """Names without a slash before the bucket, as gcsfs gives them."""

    protocol = "gs"
    store: ClassVar[dict[str, object]] = {}
    pseudo_dirs: ClassVar[list[str]] = [""]

    def ls(self, path, detail=True, **kwargs):  # type: ignore[no-untyped-def]
        found = super().ls(path, detail=True, **kwargs)
        return [{**one, "name": one["name"].lstrip("/")} for one in found]


@pytest.fixture
def bucket() -> Iterator[Bucket]:
    known = fsspec.registry.get("gs")
    fsspec.register_implementation("gs", Bucket, clobber=True)
    _system.cache_clear()
    system = Bucket(skip_instance_cache=True)
    yield system
    Bucket.store.clear()
    _system.cache_clear()
    if known is not None:
        fsspec.register_implementation("gs", known, clobber=True)


def run(place: str, output: str, **more: bool) -> list[tuple[str, str]]:
    result = run_djpeg(
        find_inputs([place]),
        parse_place(output),
        DjpegSettings(guide="uniform"),
        BatchSettings(**more),
        RunOptions(jobs=1, isolate=False),
    )
    return [(record.input.rpartition("/")[2], record.status) for record in result.records]


def test_photos_of_a_bucket_go_into_a_bucket(bucket: Bucket) -> None:
    rng = np.random.default_rng(0)
    for name in ("a.jpg", "more/b.jpg"):
        photo = rng.integers(0, 255, (64, 64, 3), np.uint8)
        bucket.pipe(f"b/in/{name}", encode_plain_jpeg(photo, quality=95))
    bucket.pipe("b/in/bad.jpg", b"no photo")
    assert sorted(run("gs://b/in", "gs://b/out")) == [
        ("a.jpg", "ok"),
        ("b.jpg", "ok"),
        ("bad.jpg", "failed"),
    ]
    made = sorted(name for name in Bucket.store if name.startswith("/b/out"))
    assert made == ["/b/out/a.jpg", "/b/out/more/b.jpg"]
    assert bucket.cat("b/out/a.jpg")[:2] == b"\xff\xd8"
    before = [bucket.modified(name) for name in made]
    again = dict(run("gs://b/in", "gs://b/out", resume=True))
    assert again["bad.jpg"] == "failed"
    assert [bucket.modified(name) for name in made] == before
