"""Rate against accuracy: codecs by one contract, and what is made of their points."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from kit import jpeg_bytes, picture
from PIL import Image

from vizcomp.errors import InputError, ModelError, SettingsError
from vizcomp.evaluation import data as evaluation_data
from vizcomp.evaluation import run, tasks
from vizcomp.evaluation.codecs import QUALITIES, open_codec, scan_bytes
from vizcomp.evaluation.data import _sample
from vizcomp.evaluation.points import _bd_rate, _bootstrap_f1, _share_interval, bytes_at
from vizcomp.evaluation.results import EvalPoint, EvalSettings, Progress
from vizcomp.evaluation.run import run_eval
from vizcomp.evaluation.summary import short_name
from vizcomp.evaluation.tasks import opened_system, work_on_chunk
from vizcomp.photos.encode import encode_plain_jpeg, encode_png
from vizcomp.vision.answers import Boxes
from vizcomp.vision.callables import System
from vizcomp.vision.system import corners_to_quads
from vizcomp.vision.systems import open_system


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classes of CIFAR-10 by name, six pictures each."""
    folder = tmp_path_factory.mktemp("classes")
    for at, name in enumerate(("cat", "ship")):
        (folder / name).mkdir()
        for i in range(6):
            Image.fromarray(picture(10 * at + i)).save(folder / name / f"{i}.png")
    return folder


# --- codecs
# --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["jpeg", "webp", "avif", "djpeg:guide=uniform", "djpeg", "cifar"])
def test_codecs_give_files_and_what_they_decode_to(spec: str) -> None:
    codec = open_codec(spec)
    sources = [picture(i) for i in range(3)]
    sweeps = list(codec.sweep(sources, 3))
    assert {s.series or codec.name for s in sweeps} == set(codec.series)
    for sweep in sweeps:
        assert not sweep.errors
        for source, result, size, payload in zip(
            sources, sweep.results, sweep.sizes, sweep.payloads, strict=True
        ):
            assert result is not None
            assert result.shape == source.shape
            assert size is not None
            assert payload is not None
            assert 0 < payload <= size
    first, last = sweeps[0], [s for s in sweeps if s.series == sweeps[0].series][-1]
    assert sum(s or 0 for s in first.sizes) < sum(s or 0 for s in last.sizes)


def test_plain_jpeg_is_pillows_own_to_the_byte() -> None:
    source = picture(0, 48, 64)
    sweep = next(iter(open_codec("jpeg").sweep([source], 1)))
    data = jpeg_bytes(source, quality=QUALITIES["jpeg"][0], subsampling="4:2:0")
    assert sweep.sizes == [len(data)]
    assert np.array_equal(sweep.results[0], np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("progressive", [False, True])
def test_scan_bytes_are_what_is_left_without_headers(progressive: bool) -> None:
    data = jpeg_bytes(picture(3, 64, 64), progressive=progressive, quality=30)
    inside = scan_bytes(data)
    assert 0 < inside < len(data)
    headers, at = 4, 2  # the first and the last marker have no length
    while data[at : at + 2] != b"\xff\xd9":
        length = 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        scan = data[at + 1] == 0xDA
        headers, at = headers + length, at + length
        while scan and (data[at] != 0xFF or data[at + 1] == 0):
            at += 1
    assert at + 2 == len(data)
    assert inside == len(data) - headers
    for cut in (b"", data[:3], data[:-20]):
        assert scan_bytes(cut) <= len(cut)


def test_recurrent_codec_shares_a_pack_among_its_images() -> None:
    codec = open_codec("cifar")
    sources = [picture(i) for i in range(4)]
    alone, packed = (
        next(s for s in codec.sweep(sources, 1000) if (s.series or codec.name) == name)
        for name in codec.series
    )
    for size, load, file in zip(packed.sizes, packed.payloads, alone.sizes, strict=True):
        assert size is not None
        assert load is not None
        assert file is not None
        assert load < size < load + 2 < file
    assert all(np.array_equal(a, b) for a, b in zip(alone.results, packed.results, strict=True))


@pytest.mark.parametrize(
    "spec",
    [
        "bmp",
        "jpeg:quality=3",
        "djpeg:colour=1",
        "djpeg:guide",
        "djpeg:guide=mask",
        "cifar:search=x",
        "cifar:told=wrong",
        "cifar-label:told=lies",
        "cifar:a=1",
    ],
)
def test_unknown_codecs_and_options_are_refused(spec: str) -> None:
    with pytest.raises(SettingsError):
        open_codec(spec)


def test_one_image_that_fails_is_that_images_error() -> None:
    sweep = next(iter(open_codec("webp").sweep([picture(0), np.zeros((1, 17000, 3), np.uint8)], 2)))
    assert sweep.results[0] is not None
    assert sweep.results[1] is None
    assert [index for index, _ in sweep.errors] == [1]


# --- the whole
# --------------------------------------------------------------------------------------------------


def timeless(result: Any) -> dict[str, Any]:
    found = dataclasses.asdict(result)
    for point in found["points"]:
        del point["encode_seconds"], point["decode_seconds"]
    return found


def test_labelled_images_give_accuracies_that_can_be_computed_by_hand(classes: Path) -> None:
    settings = EvalSettings(
        classifiers=("inception", "watcher"), data=str(classes), baselines=("jpeg", "webp")
    )
    told: list[Progress] = []
    result = run_eval(settings, jobs=1, on_progress=told.append)
    assert [(p.done, p.total) for p in told] == [(i + 1, 4) for i in range(4)]
    assert result.data["images"] == 12
    assert result.data["labels"]
    assert [c["unseen"] for c in result.classifiers] == [False, True]
    system = open_system("watcher")
    sources = [picture(10 * at + i) for at in range(2) for i in range(6)]
    names = ["cat"] * 6 + ["ship"] * 6
    right = [
        system.classes[a.best] == n for a, n in zip(system.answers(sources), names, strict=True)
    ]  # type: ignore[union-attr]
    assert result.source_accuracy["watcher"] == sum(right) / 12
    point = next(p for p in result.points if (p.codec, p.setting) == ("jpeg", "quality 20"))
    files = [jpeg_bytes(s, quality=20, subsampling="4:2:0") for s in sources]
    assert point.bytes_per_image == sum(map(len, files)) / 12
    assert point.bpp == pytest.approx(8 * sum(map(len, files)) / (12 * 1024))
    decoded = [np.asarray(Image.open(io.BytesIO(f))) for f in files]
    found = [a.best for a in system.answers(decoded)]  # type: ignore[union-attr]
    assert (
        point.accuracy["watcher"]
        == sum(system.classes[b] == n for b, n in zip(found, names, strict=True)) / 12
    )
    before = [a.best for a in system.answers(sources)]  # type: ignore[union-attr]
    assert (
        point.agreement["watcher"] == sum(a == b for a, b in zip(before, found, strict=True)) / 12
    )
    error = [((a.astype(float) - b) ** 2).mean() for a, b in zip(sources, decoded, strict=True)]
    assert point.psnr == pytest.approx(np.mean([10 * math.log10(255**2 / e) for e in error]))
    assert "cifar" in result.headline
    assert "Unseen watcher" in result.headline
    assert len(result.gallery) == 12
    assert result.gallery[0].score <= result.gallery[-1].score


def test_parallel_and_serial_agree(classes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation_data, "CHUNK_SMALL", 1)
    settings = EvalSettings(
        data=str(classes), codecs=("djpeg:guide=uniform",), baselines=("jpeg",), limit=4
    )
    serial, parallel = run_eval(settings, jobs=1), run_eval(settings, jobs=2)
    assert timeless(serial) == timeless(parallel)
    assert serial.data["images"] == 4


def test_what_a_stopped_evaluation_finished_is_taken_over(
    classes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(evaluation_data, "CHUNK_SMALL", 5)
    settings = EvalSettings(
        classifiers=("watcher",),
        data=str(classes),
        codecs=("djpeg:guide=uniform",),
        baselines=("jpeg", "webp"),
    )
    calm = run_eval(settings, jobs=1)
    working, worked = work_on_chunk, []

    def counted(task: Any) -> Any:
        if task.codec:
            worked.append((task.codec, task.chosen[0]))
        return working(task)

    def stop_in_the_middle(progress: Progress) -> None:
        if progress.what == "jpeg":
            raise KeyboardInterrupt

    monkeypatch.setattr(run, "work_on_chunk", counted)
    stopped = run_eval(settings, jobs=1, output=tmp_path, on_progress=stop_in_the_middle)
    assert stopped.interrupted
    assert {p.codec for p in stopped.points} == {"djpeg:guide=uniform"}
    assert worked == [*(("djpeg:guide=uniform", i) for i in (0, 5, 10)), ("jpeg", 0)]
    worked.clear()
    rest = run_eval(settings, jobs=1, output=tmp_path, resume=True)
    assert timeless(rest) == timeless(calm)
    assert worked == [("jpeg", 5), ("jpeg", 10), *(("webp", i) for i in (0, 5, 10))]
    times = {(p.codec, p.setting): p.encode_seconds for p in stopped.points}
    assert times.items() <= {(p.codec, p.setting): p.encode_seconds for p in rest.points}.items()
    worked.clear()
    # other images
    run_eval(dataclasses.replace(settings, limit=11), jobs=1, output=tmp_path, resume=True)
    assert len(worked) == 9
    worked.clear()
    run_eval(settings, jobs=1, output=tmp_path)  # not asked for
    assert len(worked) == 9
    assert list(tmp_path.iterdir()) == []


def test_photos_give_agreement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for i in range(3):
        (tmp_path / f"{i}.jpg").write_bytes(jpeg_bytes(picture(i, 64 + i, 96)))
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 no photo")
    skipped: list[str] = []
    settings = EvalSettings(classifiers=("watcher",), data=str(tmp_path), baselines=("webp",))
    result = run_eval(settings, jobs=1, on_skip=lambda name, why: skipped.append(name))
    assert len(skipped) == result.data["skipped"] == 1
    assert not result.data["labels"]
    assert result.source_accuracy == {"watcher": None}
    assert all(
        p.accuracy == {"watcher": None} and p.agreement["watcher"] is not None
        for p in result.points
    )
    assert any("JPEG" in w for w in result.warnings)
    assert any("no labels" in w for w in result.warnings)


class Finder:
    """Finds one box wherever a picture is bright; throws on dark ones."""

    name, kind, fingerprint, classes, native = "finder", "boxes", "1", (), 0

    def answers(self, pictures: Any) -> Any:
        found = []
        for one in pictures:
            if one.mean() < 5:
                raise RuntimeError("too dark")
            quads = (
                corners_to_quads(np.array([[0.0, 0, 10, 10]]))
                if one.mean() > 120
                else np.zeros((0, 4, 2))
            )
            found.append(Boxes(quads, (), one.shape[1::-1]))
        return found

    def importance(self, one: Any) -> Any:
        return np.ones((1, 1), np.float32)


def test_a_system_that_throws_or_finds_nothing_is_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, level in (("bright", 200), ("middle", 100), ("dark", 0)):
        (tmp_path / f"{name}.png").write_bytes(encode_png(np.full((48, 48, 3), level, np.uint8)))
    monkeypatch.setattr(tasks, "open_system", lambda name, offline=False: Finder())
    opened_system.cache_clear()
    result = run_eval(
        EvalSettings(classifiers=("finder",), data=str(tmp_path), baselines=("jpeg",)), jobs=1
    )
    opened_system.cache_clear()
    assert result.classifiers[0]["without_answer"] == 2
    assert any("too dark" in w for w in result.warnings)
    assert any("finds nothing" in w for w in result.warnings)
    for point in result.points:
        assert (point.agreement["finder"], point.recall["finder"], point.precision["finder"]) == (
            1,
            1,
            1,
        )
    boxes = next(e for e in result.gallery if e.name == "bright.png").boxes["finder"]
    assert (
        boxes[0] == boxes[1] == [[(0.0, 0.0), (10 / 48, 0.0), (10 / 48, 10 / 48), (0.0, 10 / 48)]]
    )


def test_where_nothing_is_found_on_any_source_the_headline_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "middle.png").write_bytes(encode_png(np.full((48, 48, 3), 100, np.uint8)))
    monkeypatch.setattr(tasks, "open_system", lambda name, offline=False: Finder())
    opened_system.cache_clear()
    result = run_eval(
        EvalSettings(classifiers=("finder",), data=str(tmp_path), baselines=("jpeg",)), jobs=1
    )
    opened_system.cache_clear()
    assert "finder finds nothing on any source" in result.headline
    assert "F1" not in result.headline


def test_without_data_and_network_the_samples_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VIZCOMP_CACHE", str(tmp_path))
    result = run_eval(EvalSettings(baselines=("jpeg",), offline=True), jobs=1)
    assert result.data["images"] == 6
    assert any("CIFAR-10 could not be had" in w for w in result.warnings)


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"classifiers": ("nobody",)}, ModelError),
        ({"codecs": ("zip",)}, SettingsError),
        ({"data": "/no/such/folder"}, InputError),
    ],
)
def test_what_no_image_can_do_without_fails_first(
    changes: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        run_eval(EvalSettings(**{"baselines": (), "offline": True, **changes}), jobs=1)


def test_settings_that_make_no_sense_are_refused() -> None:
    for changes in ({"limit": -1}, {"classifiers": ()}, {"baselines": ("jpeg", "jpeg")}):
        with pytest.raises(SettingsError):
            EvalSettings(**changes)  # type: ignore[arg-type]


def test_samples_are_even_over_the_classes() -> None:
    labels = np.array([0] * 50 + [1] * 5 + [2] * 20)
    chosen = _sample(labels, 15, 3)
    assert [int((labels[chosen] == c).sum()) for c in range(3)] == [5, 5, 5]
    assert chosen == _sample(labels, 15, 3)
    assert chosen != _sample(labels, 15, 4)
    assert _sample(labels, 0, 0) == list(range(75))


# --- what is made of the points
# -------------------------------------------------------------------------------------


def point(size: float, value: float, codec: str = "ours", ours: bool = True) -> EvalPoint:
    one: dict[str, Any] = {"a": value}
    none: dict[str, Any] = {"a": None}
    return EvalPoint(
        codec=codec,
        setting=f"{size}",
        ours=ours,
        images=1,
        bytes_per_image=size,
        payload_bytes_per_image=size,
        bpp=1,
        accuracy=none,
        agreement=one,
        top5=none,
        recall=none,
        precision=none,
        interval=none,
        psnr=20 + 10 * value,
        ms_ssim=value,
        encode_seconds=0,
        decode_seconds=0,
    )


def test_bytes_at_a_level_are_between_its_neighbours() -> None:
    curve = [point(10, 0.5), point(100, 0.7), point(1000, 0.9)]
    assert bytes_at(curve, "agreement:a", 0.4) == 10
    assert bytes_at(curve, "agreement:a", 0.6) == pytest.approx(math.sqrt(10 * 100))
    assert bytes_at(curve, "agreement:a", 0.9) == pytest.approx(1000)
    assert bytes_at(curve, "agreement:a", 0.95) is None
    assert bytes_at([point(10, 0.5), point(20, 0.3), point(30, 0.8)], "agreement:a", 0.45) == 10


def test_bd_rate_says_why_there_is_none() -> None:
    few = [point(2.0**i, i / 10) for i in range(5)]
    many = [point(2.0**i, i / 10) for i in range(6)]
    high = [point(2.0**i, 2 + i / 10) for i in range(6)]
    assert "5 points" in _bd_rate(few, many, "ms_ssim")["why"]
    assert _bd_rate(many, high, "ms_ssim")["why"] == "no overlap"
    half = [dataclasses.replace(p, bytes_per_image=p.bytes_per_image / 2) for p in many]
    found = _bd_rate(many, half, "ms_ssim")
    assert found["bd_rate"] == pytest.approx(-0.5)
    assert found["overlap"] == [0, 0.5]


def test_bd_rate_agrees_with_the_bjontegaard_package() -> None:
    import bjontegaard

    rng = np.random.default_rng(0)
    a = [
        point(r, q)
        for r, q in zip(np.cumsum(rng.random(7)) + 1, np.cumsum(rng.random(7)) / 7, strict=True)
    ]
    b = [
        point(r, q)
        for r, q in zip(np.cumsum(rng.random(7)) + 1, np.cumsum(rng.random(7)) / 7, strict=True)
    ]
    theirs = bjontegaard.bd_rate(
        [p.bytes_per_image for p in a],
        [p.ms_ssim for p in a],
        [p.bytes_per_image for p in b],
        [p.ms_ssim for p in b],
        method="pchip",
        require_matching_points=False,
        min_overlap=0,
    )
    assert 100 * _bd_rate(a, b, "ms_ssim")["bd_rate"] == pytest.approx(theirs, abs=0.1)


def test_intervals_hold_the_mean_and_shrink_with_more_images() -> None:
    few, many = np.array([1.0] * 8 + [0.0] * 2), np.array(([1.0] * 8 + [0.0] * 2) * 100)
    (low, high), (lower, upper) = _share_interval(few), _share_interval(many)
    assert low < 0.8 < high
    assert lower < 0.8 < upper
    assert upper - lower < (high - low) / 5
    low, high = _share_interval(np.ones(6))
    assert (round(low, 2), high) == (0.61, 1)
    assert _bootstrap_f1(np.ones((6, 3)), 0) == pytest.approx((low, 1))
    counts = np.array([[1, 1, 1], [0, 1, 1], [2, 2, 2], [1, 2, 1]] * 10, float)
    low, high = _bootstrap_f1(counts, 0)
    assert low < 2 * 4 / 11 < high


def test_photos_are_measured_at_their_own_size_and_systems_guide(tmp_path: Path) -> None:
    for label in ("cat", "dog"):
        (tmp_path / label).mkdir()
        for i in range(2):
            (tmp_path / label / f"{i}.jpg").write_bytes(jpeg_bytes(picture(i, 72, 96)))
    settings = EvalSettings(
        classifiers=("watcher",),
        data=str(tmp_path),
        codecs=("djpeg:guide=system:watcher,strength=0.5",),
        baselines=("jpeg",),
    )
    result = run_eval(settings, jobs=1)
    assert (result.data["width"], result.data["height"], result.data["labels"]) == (96, 72, True)
    assert result.undone == ()
    assert result.source_accuracy["watcher"] is not None
    sizes = [len(encode_plain_jpeg(picture(i, 72, 96), quality=50)) for i in range(2)]
    assert max(p.bytes_per_image for p in result.points) > min(sizes)
    assert "of the sources' bytes, by djpeg:guide=system:watcher" in result.headline
    assert "ptimised JPEG needs" in result.headline or "o baseline reaches that" in result.headline
    assert "From 4 images alone, which prove little." in result.headline
    assert result.classifiers[0]["reading"].startswith("classes")


def test_a_guide_that_fails_on_every_image_is_told(tmp_path: Path) -> None:
    def fails(image: Any) -> Any:
        raise RuntimeError("no")

    (tmp_path / "a.png").write_bytes(encode_png(picture(0, 48, 64)))
    system = System(lambda image: [0.5, 0.5], "classes", name="fine")
    broken = System(fails, "classes", name="broken")
    result = run_eval(
        EvalSettings(
            classifiers=("fine",),
            data=str(tmp_path),
            codecs=(f"djpeg:guide=system:{broken.name}",),
            baselines=("jpeg",),
        ),
        jobs=1,
    )
    assert result.undone == ("djpeg:guide=system:broken",)
    assert any("broken fails" in warning for warning in result.warnings)
    assert result.classifiers[0]["fingerprint"] == system.fingerprint


def test_options_of_a_model_stay_with_its_name() -> None:
    codec = System(lambda image: [0.5, 0.5], "classes", name="m.onnx:crop=0.5")
    made = open_codec("djpeg:guide=system:m.onnx:crop=0.5,strength=0.5")
    assert made.fingerprint == codec.fingerprint
    with pytest.raises(SettingsError, match="no option"):
        open_codec("djpeg:guide=uniform,rest")


def test_an_archive_is_measured_as_its_files_are(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "set.tar", "w") as archive:
        for at, name in enumerate(("cat", "dog")):
            for i in range(3):
                data = jpeg_bytes(picture(10 * at + i, 90, 130 + i))
                member = tarfile.TarInfo(f"set/{name}/{i}.jpg")
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        member = tarfile.TarInfo("set/dog/broken.jpg")
        archive.addfile(member, io.BytesIO())
    system = System(lambda image: [0.6, 0.4], "classes", name="any-size", classes=("cat", "dog"))
    said: list[str] = []
    settings = EvalSettings(
        classifiers=(system.name,),
        data=str(tmp_path / "set.tar"),
        codecs=("djpeg:guide=uniform",),
        baselines=("jpeg",),
        limit=5,
    )
    result = run_eval(settings, jobs=1, on_skip=lambda name, why: said.append(name))
    assert result.data["name"] == "class folders, in an archive"
    assert (result.data["height"], result.data["width"]) == (0, 0)  # of several sizes
    assert result.data["images"] + len(said) == 5
    assert result.source_accuracy[system.name] is not None
    assert result.data["source_bytes_per_image"] > 1000
    point = next(p for p in result.points if p.codec == "jpeg")
    assert point.bpp == pytest.approx(8 * point.bytes_per_image / (90 * 131), rel=0.02)


def test_a_table_is_measured_as_its_pictures_are(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet

    files = [jpeg_bytes(picture(i, 90, 130 + i)) for i in range(6)]
    rows = {"image": [{"bytes": data, "path": None} for data in [*files, b"", b"no picture"]]}
    table = arrow.table({**rows, "label": arrow.array([0, 1, 0, 1, 0, 1, 1, 0], arrow.int64())})
    about = {"info": {"features": {"label": {"names": ["cat", "dog"]}}}}
    table = table.replace_schema_metadata({"huggingface": json.dumps(about)})
    pyarrow.parquet.write_table(table, tmp_path / "test-0.parquet")
    system = System(lambda image: [0.6, 0.4], "classes", name="any-size", classes=("cat", "dog"))
    said: list[str] = []
    settings = EvalSettings(
        classifiers=(system.name,),
        data=str(tmp_path),
        codecs=("djpeg:guide=uniform",),
        baselines=("jpeg",),
    )
    result = run_eval(settings, jobs=1, on_skip=lambda name, why: said.append(name))
    assert said == ["test-0.parquet/00006", "test-0.parquet/00007"]
    assert (result.data["name"], result.data["images"]) == ("Parquet files", 6)
    assert (result.data["height"], result.data["width"]) == (0, 0)  # of several sizes
    assert result.source_accuracy[system.name] == pytest.approx(0.5)
    assert result.data["source_bytes_per_image"] == sum(map(len, files)) / 6
    assert not any("224" in warning for warning in result.warnings)


def test_models_go_by_their_files_in_sentences() -> None:
    assert short_name("/models/own.onnx:detector=yolox,least=0.4") == "own.onnx"
    assert short_name("text:read:least=0.6") == "text:read:least=0.6"
