"""Photos without classes in tables and archives: measured as they are, by any system."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import jpeg_bytes, picture

from vizcomp.errors import FormatError, InputError
from vizcomp.evaluation.results import EvalResult, EvalSettings
from vizcomp.evaluation.run import run_eval
from vizcomp.vision.callables import System

FILES = [jpeg_bytes(picture(i, 90, 130 + i)) for i in range(4)]


def written(path: Path, **columns: Any) -> Path:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    pyarrow.parquet.write_table(arrow.table(columns), path, row_group_size=2)
    return path


def cells(*files: bytes | None) -> list[dict[str, Any] | None]:
    return [data and {"bytes": data, "path": None} for data in files]


def measured(data: Path, system: System, limit: int = 0) -> tuple[EvalResult, list[str]]:
    said: list[str] = []
    settings = EvalSettings(
        classifiers=(system.name,),
        data=str(data),
        codecs=("djpeg:guide=uniform",),
        baselines=(),
        limit=limit,
    )
    result = run_eval(settings, jobs=1, on_skip=lambda name, why: said.append(f"{name}: {why}"))
    return result, said


def detector() -> System:
    return System(lambda image: np.array([[3, 4, 60, 70]]), "boxes", name="one-box")


def reader() -> System:
    return System(lambda image: ["STOP"], "text", name="one-line")


def test_a_detector_and_a_reader_measure_the_photos_of_a_table(tmp_path: Path) -> None:
    table = written(
        tmp_path / "test-0.parquet",
        image=cells(*FILES, None, b"no picture"),
        objects=["a", "b", "c", "d", "e", "f"],
    )
    for system in (detector(), reader()):
        for place in (table, tmp_path):
            result, said = measured(place, system)
            assert result.data["images"] == 4
            assert result.data["source_bytes_per_image"] == sum(map(len, FILES)) / 4
            assert result.data["jpeg_sources"] == 4
            assert [each.partition(":")[0] for each in said] == [
                "test-0.parquet/00004",
                "test-0.parquet/00005",
            ]
            assert "the cell is empty" in said[0]
            assert result.points[-1].agreement[system.name] == 1
    assert measured(table, detector(), limit=2)[0].data["images"] == 2


def test_the_test_part_counts_and_photos_go_before_tables(tmp_path: Path) -> None:
    written(tmp_path / "train-0.parquet", image=cells(*FILES))
    written(tmp_path / "test-0.parquet", image=cells(FILES[0]))
    assert measured(tmp_path, detector())[0].data["images"] == 1
    (tmp_path / "a.jpg").write_bytes(FILES[0])
    (tmp_path / "b.jpg").write_bytes(FILES[1])
    assert measured(tmp_path, detector())[0].data["images"] == 2


def test_a_classifier_agrees_with_itself_where_a_table_has_no_labels(tmp_path: Path) -> None:
    table = written(tmp_path / "a.parquet", photo=FILES)
    system = System(lambda image: [0.6, 0.4], "classes", name="any-size")
    result, _ = measured(table, system)
    assert not result.data["labels"]
    assert result.source_accuracy[system.name] is None
    assert result.points[-1].agreement[system.name] == 1


def test_which_of_several_columns_is_meant(tmp_path: Path) -> None:
    both = written(tmp_path / "a.parquet", image=cells(*FILES), mask=cells(*FILES[::-1]))
    assert measured(both, detector())[0].data["images"] == 4
    odd = written(tmp_path / "b.parquet", left=cells(*FILES), right=cells(*FILES))
    with pytest.raises(InputError, match="several columns of photos: left, right"):
        measured(odd, detector())
    none = written(tmp_path / "c.parquet", words=["a", "b"])
    for system in (detector(), System(lambda image: [0.6, 0.4], "classes", name="any-size")):
        with pytest.raises((InputError, FormatError), match="column"):
            measured(none, system)


def test_a_detector_measures_the_photos_of_an_archive(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar.gz", "w:gz") as archive:
        for i, data in enumerate(FILES):
            for name, held in ((f"{i}.jpg", data), (f"{i}.json", b"{}")):
                member = tarfile.TarInfo(f"set/{name}")
                member.size = len(held)
                archive.addfile(member, io.BytesIO(held))
    result, said = measured(tmp_path / "set.tar.gz", detector())
    assert (result.data["images"], said) == (4, [])
    with tarfile.open(tmp_path / "none.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("a.json"), io.BytesIO())
    with pytest.raises(InputError, match="holds no photos"):
        measured(tmp_path / "none.tar", detector())
