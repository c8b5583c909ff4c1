"""The search for the smallest file that a system sees alike, and `--verify` and `--guide system:`
around it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kit import command, jpeg_bytes
from PIL import Image, ImageCms
from test_vision import classifier

from vizcomp import metrics
from vizcomp.batch import engines, judges
from vizcomp.batch import single as batch_single
from vizcomp.batch.groups import worker_codec
from vizcomp.batch.judges import opened_system
from vizcomp.batch.seen import file_views, uncoloured
from vizcomp.batch.settings import MIN_QUALITY, BatchSettings
from vizcomp.batch.verdicts import RUNGS, TRIALS, Panel, robust, rungs_from, trials_worth
from vizcomp.evaluation import tasks
from vizcomp.photos.photo import load
from vizcomp.vision import verify
from vizcomp.vision.answers import NOWHERE, Answer, Boxes, Classes, Comparison, Text, compare
from vizcomp.vision.callables import System as CallableSystem
from vizcomp.vision.models import ModelSystem
from vizcomp.vision.system import System
from vizcomp.vision.systems import open_system
from vizcomp.vision.views import Fit, view_of

Run = Callable[..., tuple[int, str]]


class Contrast:
    """A system whose class is the mean of a picture's fine detail, in steps of `step`: any loss
    beyond that is seen."""

    name, kind, fingerprint, classes, native = "contrast", "classes", "1", (), 0

    def __init__(self, step: float = 0.5) -> None:
        self.step = step

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        found: list[Answer] = []
        for image in images:
            detail = np.abs(np.diff(image.astype(np.float32), axis=0)).mean()
            probabilities = np.zeros(1000, np.float32)
            probabilities[min(999, int(detail / self.step))] = 1
            found.append(Classes(probabilities))
        return found

    def importance(self, image: np.ndarray) -> np.ndarray:
        return np.tile(np.array([[1, 0]], np.float32), (1, 1))


class Never(Contrast):
    """No two answers alike."""

    def __init__(self) -> None:
        self.calls = 0

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        self.calls += 1
        return [Boxes(np.zeros((self.calls, 4, 2)))] * len(images)


class Throws(Contrast):
    """Fails on bright pictures."""

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        if any(i.mean() > 200 for i in images):
            raise ValueError("too bright\nto see")
        return super().answers(images)


class Blind(Contrast):
    """Finds nothing at all."""

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        return [Boxes(np.zeros((0, 4, 2)))] * len(images)


@pytest.fixture
def run(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Run]:
    """Runs a command in this process with systems of these tests by name."""
    systems = {
        "contrast": Contrast,
        "never": Never,
        "throws": Throws,
        "coarse": lambda: Contrast(1000.0),
        "nothing": Blind,
    }

    def opened(name: str, *, offline: bool = False) -> System:
        return systems[name]() if name in systems else real(name, offline=offline)

    real = open_system
    for module in (judges, tasks):
        monkeypatch.setattr(module, "open_system", opened)
    # a worker process would not know these systems
    monkeypatch.setattr(engines, "TASKS_TO_ISOLATE", sys.maxsize)
    monkeypatch.chdir(tmp_path)

    def called(*arguments: object, code: int = 0) -> tuple[int, str]:
        opened_system.cache_clear()
        worker_codec.cache_clear()
        ended = command(*arguments)
        out, err = capfd.readouterr()
        assert ended == code, err
        assert "Traceback" not in err
        return ended, out + err

    yield called
    opened_system.cache_clear()


def verdicts(good: Sequence[bool]) -> Callable[[bytes], Comparison]:
    return lambda data: Comparison(1.0 if good[len(data) - 1] else 0.25, good[len(data) - 1])


@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_what_is_kept_has_passed_itself(good: list[bool]) -> None:
    asked: list[int] = []

    def encode(rung: int) -> bytes:
        asked.append(rung)
        return bytes(rung)

    found = verify.smallest(range(1, len(good) + 1), encode, verdicts(good))
    assert (
        found.trials
        == len(asked)
        == len(set(asked))
        <= max(verify.TRIALS, len(good).bit_length() + 1)
    )
    if found.verified:
        assert good[found.rung - 1]
        assert found.rung == min(r for r in asked if good[r - 1])
    else:
        assert not any(good[r - 1] for r in asked)
        assert found.rung == len(good) == max(asked)
    assert found.verified or not good[-1]
    assert found.data == bytes(found.rung)


@pytest.mark.parametrize("first", range(1, 17))
def test_where_verdicts_are_monotone_it_is_the_smallest(first: int) -> None:
    good = [rung >= first for rung in range(1, 17)]
    found = verify.smallest(range(1, 17), bytes, verdicts(good))
    assert found.rung == first


def test_a_lucky_file_below_is_found_while_trials_are_left() -> None:
    good = [rung in (6, 8) for rung in range(1, 9)]
    found = verify.smallest(range(1, 9), bytes, verdicts(good))
    assert found.rung == 6
    with pytest.raises(ValueError, match="no rungs"):
        verify.smallest([], bytes, verdicts([]))


def test_a_costly_file_is_worth_more_trials() -> None:
    good = [rung in (30, 90, *range(97, 101)) for rung in range(1, 101)]
    few = verify.smallest(
        range(1, 101), bytes, verdicts(good), budget=lambda size: 8 if size < 98 else 12
    )
    assert (few.rung, few.trials) == (97, 8)  # by halves: 50, 75, 88, 94, 97, 95 and 96, then 93
    more = verify.smallest(
        range(1, 101), bytes, verdicts(good), budget=lambda size: 8 if size < 90 else 12
    )
    assert (more.rung, more.trials) == (90, 12)
    assert trials_worth(1000, 999) > trials_worth(1000, 100) > trials_worth(1000, 0) >= 4


def test_a_throw_starts_below_what_is_there_and_goes_on_while_it_passes() -> None:
    asked: list[int] = []

    def judge(good: set[int]) -> Callable[[bytes], Comparison]:
        def verdict(data: bytes) -> Comparison:
            asked.append(len(data))
            return Comparison(1.0, len(data) in good)

        return verdict

    def thrown(good: set[int], trials: int = 3, below: int = 100) -> tuple[int | None, int]:
        asked.clear()
        found, used = verify.thrown(
            range(10, 200, 10), bytes, judge(good), below=below, trials=trials
        )
        assert used == len(asked)
        return (None if found is None else len(found.data)), used

    assert thrown({90, 80}) == (80, 3)
    assert asked == [90, 80, 70]  # 100 saves too little, and 70 fails
    assert thrown({80}) == (80, 3)  # one failure is no reason to stop
    assert thrown(set()) == (None, verify.THROWS)
    assert thrown({90, 80, 70, 60}, trials=2) == (80, 2)
    assert thrown({10}, below=10) == (None, 0)  # nothing is smaller
    assert thrown(set(range(10, 200, 10)), trials=9, below=10_000) == (110, 9)


def square(at: int) -> np.ndarray:
    return np.array([[at, 0], [at + 10, 0], [at + 10, 10], [at, 10]], np.float64)[None]


def searched(needs: list[int], rest_needs: int) -> tuple[verify.Verified, verify.Verified]:
    """Without and with mending. Each place needs a rung of its own, the rest another; the bytes say
    what is given to whom."""
    made: list[tuple[int, list[int]]] = []

    def encode(rung: int) -> bytes:
        return (
            json.dumps([rung, rung, list(range(len(needs))), 10 * rung * (len(needs) + 1)])
            .ljust(2 + 20 * rung)
            .encode()
        )

    def mend(rest: int, fine: int, places: np.ndarray) -> bytes:
        mended = [int(q[0, 0]) // 100 for q in places]
        assert len(mended) == len(set(mended))
        assert rest < fine
        assert (rest, mended) not in made, "each file is made once"
        made.append((rest, mended))
        return (
            json.dumps([rest, fine, mended])
            .ljust(2 + 20 * rest + (fine - rest) * len(mended))
            .encode()
        )

    def judge(data: bytes) -> Comparison:
        rest, fine, mended = json.loads(data)[:3]
        missed = [i for i, need in enumerate(needs) if (fine if i in mended else rest) < need]
        same = not missed and rest >= rest_needs
        where = np.concatenate([NOWHERE, *(square(100 * i) for i in missed)])
        return Comparison(float(same), same, unlike=where)

    plain = verify.smallest(range(17), encode, judge)
    found = verify.smallest(range(17), encode, judge, mend=mend)
    assert judge(found.data).same
    assert found.trials <= verify.TRIALS + 1
    assert len(found.data) <= len(plain.data)
    return plain, found


@given(st.lists(st.integers(0, 16), min_size=1, max_size=4), st.integers(0, 14))
def test_places_that_a_system_misses_get_what_they_need(needs: list[int], rest_needs: int) -> None:
    searched(needs, rest_needs)


@given(st.data())
def test_places_that_need_much_more_than_the_rest_are_mended(data: st.DataObject) -> None:
    rest_needs = data.draw(st.integers(0, 14 - max(verify.BELOW)))
    most = data.draw(st.integers(rest_needs + max(verify.BELOW) + 1, 15))
    others = data.draw(st.lists(st.integers(0, most), max_size=3))
    plain, found = searched(data.draw(st.permutations([most, *others])), rest_needs)
    assert found.places
    assert found.rung < most
    assert len(found.data) < len(plain.data)


@pytest.mark.parametrize(
    ("lucky", "trials"), [({11}, 8), ({9, 10}, 8), ({14}, 9), ({8}, 12), (set(), 12)]
)
def test_under_the_last_rung_luck_is_tried_more_often(lucky: set[int], trials: int) -> None:
    """A system that is content with the last rung of sixteen, and else only with some mended files,
    in no order."""

    def judge(data: bytes) -> Comparison:
        same = len(data) == 1000 or len(data) - 100 in lucky
        return Comparison(float(same), same, unlike=square(0))

    def mend(rest: int, fine: int, places: np.ndarray) -> bytes:
        assert fine == 15
        return bytes(100 + rest)

    found = verify.smallest(
        range(16),
        lambda rung: bytes(1000 if rung == 15 else rung),
        judge,
        mend=mend,
        budget=lambda size: 12 if size > 500 else 8,
    )
    assert found.rung == min(lucky, default=15)
    assert found.trials == trials


def test_answers_that_differ_everywhere_mend_nothing() -> None:
    many = np.concatenate([square(100 * i) for i in range(verify.MOST_PLACES + 1)])

    def judge(data: bytes) -> Comparison:
        return Comparison(float(len(data) >= 9), len(data) >= 9, unlike=many)

    def mend(rest: int, fine: int, places: np.ndarray) -> bytes:
        raise AssertionError("nothing to mend")

    assert verify.smallest(range(17), bytes, judge, mend=mend).rung == 9


def classes(*probabilities: float) -> Classes:
    return Classes(np.array(probabilities, np.float32))


def boxes(*at: int, label: str = "") -> Boxes:
    return Boxes(
        np.concatenate([NOWHERE, *(square(100 * i) for i in at)]),
        (label,) * len(at) if label else (),
    )


@pytest.mark.parametrize(
    ("source", "result", "tolerance", "same"),
    [
        (classes(0.9, 0.05, 0.05), classes(0.8, 0.1, 0.1), 0.0, True),
        (classes(0.9, 0.05, 0.05), classes(0.5, 0.45, 0.05), 0.0, False),
        # a tolerance loosens, the margin does not undo it
        (classes(0.9, 0.05, 0.05), classes(0.5, 0.45, 0.05), 0.1, True),
        (classes(0.4, 0.38, 0.22), classes(0.4, 0.38, 0.22), 0.0, True),
        (boxes(1, 2), boxes(1, 2), 0.0, True),
        (boxes(1, 2), boxes(1), 0.0, False),
    ],
)
def test_the_lead_must_not_shrink_much(
    source: Answer, result: Answer, tolerance: float, same: bool
) -> None:
    assert verify.compare_views([source], [result], tolerance=tolerance).same is same


@pytest.mark.parametrize("label", ["", "cat"])
def test_boxes_that_one_view_of_the_source_lacks_are_about_the_threshold(label: str) -> None:
    def made(*at: int) -> Boxes:
        return boxes(*at, label=label)

    source = [made(1, 2), made(1, 3)]  # 1 is firm; 2 and 3 are doubtful
    for first, second, same in [
        ((1,), (1,), True),
        ((1, 2, 3), (1, 2), True),
        ((2, 3), (1,), False),  # the firm one is lost in one of the views
        ((1,), (1, 4), False),  # a new one
    ]:
        verdict = verify.compare_views(source, [made(*first), made(*second)])
        assert verdict.same is same, (first, second)
        assert (len(verdict.unlike) == 0) is same  # type: ignore[arg-type]
    assert verify.sees_nothing([made(1), made()])
    assert not verify.sees_nothing(source)
    assert not verify.sees_nothing([classes(1, 0)])


def test_a_verdict_on_a_model_file_holds_in_two_views(
    run: Run, tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_single, "SAMPLE", 0)  # the search for a rival asks too
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    views: list[int] = []

    class Seen(Contrast):
        def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
            views.append(int(images[0].astype(np.int64).sum()))
            return super().answers(images)

    monkeypatch.setattr(judges, "open_system", lambda name, *, offline=False: Seen(8.0))
    for name, option, count in (
        ("own.onnx", [], 2),
        ("own.tflite", [], 2),
        ("own.onnx:crop=0.5", [], 2),
        ("own.onnx", ["--no-robust"], 1),
        ("text", [], 1),
        ("text", ["--robust"], 2),
    ):
        views.clear()
        run(
            "djpeg",
            "a.jpg",
            "-o",
            "out",
            "--guide",
            "uniform",
            "--verify",
            name,
            *option,
            "-j",
            1,
            "--overwrite",
        )
        trials = int(str(rows(tmp_path / "out")["a.jpg"]["verify_trials"]))
        assert len(set(views[:count])) == count  # of the source
        assert len(views) % count == 0
        # the same bytes are not judged twice
        assert count * 4 <= len(views) <= count * (1 + trials)


def test_a_model_that_says_its_filter_is_asked_once(tmp_path: Path) -> None:
    file, batch = str(classifier(tmp_path / "m.onnx")), BatchSettings()
    for options, twice in (("", True), (":crop=0.5", True), (":filter=bicubic", False)):
        assert robust(file + options, open_system(file + options), batch) is twice


class Spots:
    """A detector of two places whose fine detail must be what it was on the source, within a share
    of its own for each."""

    name, kind, fingerprint, classes, native = "spots", "boxes", "1", (), 0
    places = ((40, 40), (140, 300))
    shares = (0.01, 0.4)

    def __init__(self, source: np.ndarray) -> None:
        self.source = source

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        found = []
        for image in images:
            seen = []
            for (y, x), share in zip(self.places, self.shares, strict=True):
                part = (slice(y, y + 32), slice(x, x + 48))
                wanted, here = (
                    np.abs(np.diff(p[part].astype(np.float32), axis=0)).mean()
                    for p in (self.source, image)
                )
                if abs(here - wanted) <= share * wanted:
                    seen.append(
                        np.array([[x, y], [x + 48, y], [x + 48, y + 32], [x, y + 32]], np.float64)
                    )
            found.append(Boxes(np.array(seen).reshape(-1, 4, 2)))
        return list(found)

    def importance(self, image: np.ndarray) -> np.ndarray:
        return np.ones((1, 1), np.float32)


def test_one_place_that_needs_much_does_not_raise_the_whole_picture(
    run: Run, tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    source = seen(tmp_path / "a.jpg")
    real = judges.open_system
    monkeypatch.setattr(
        judges,
        "open_system",
        lambda name, *, offline=False: Spots(source) if name == "spots" else real(name),
    )
    # plain JPEG, which knows no places, is out of this
    monkeypatch.setattr(verify, "outdone", lambda *a, **k: (None, 0))
    run("djpeg", "a.jpg", "-o", "mended", "--guide", "uniform", "--verify", "spots", "-j", 1)
    searched = verify.smallest
    monkeypatch.setattr(verify, "smallest", lambda *a, mend=None, **k: searched(*a, **k))
    run("djpeg", "a.jpg", "-o", "whole", "--guide", "uniform", "--verify", "spots", "-j", 1)
    mended, whole = (rows(tmp_path / name)["a.jpg"] for name in ("mended", "whole"))
    assert mended["verified"] is whole["verified"] is True
    assert int(str(mended["output_bytes"])) < 0.7 * int(str(whole["output_bytes"]))
    assert float(str(mended["quality"])) < float(str(whole["quality"]))
    after = Spots(source).answers([seen(tmp_path / "mended" / "a.jpg")])[0]
    assert isinstance(after, Boxes)
    assert len(after.quads) == 2


def test_a_photo_without_detections_is_named(
    run: Run, tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    real = judges.open_system
    nothing = Spots(
        255 - np.tile(np.arange(400, dtype=np.uint8)[:, None, None], (1, 600, 3)) % 2 * 255
    )
    assert not len(nothing.answers([seen(tmp_path / "a.jpg")])[0].quads)  # type: ignore[union-attr]
    monkeypatch.setattr(
        judges,
        "open_system",
        lambda name, *, offline=False: nothing if name == "spots" else real(name),
    )
    for name in ("spots", "contrast"):
        run("djpeg", "a.jpg", "-o", name, "--guide", "uniform", "--verify", name, "-j", 1)
        row = rows(tmp_path / name)["a.jpg"]
        empty = name == "spots"
        assert row["verified"] is not empty
        assert row["verify_state"] == ("nothing" if empty else "verified")
        assert any("finds nothing on the source" in n for n in row["notices"]) == empty  # type: ignore[attr-defined]
        totals = json.loads((tmp_path / name / "report.json").read_text("utf-8"))["totals"]
        assert (totals["verified"], totals["nothing_to_verify"], totals["not_reached"]) == (
            not empty,
            empty,
            0,
        )
    run("djpeg", "a.jpg", "-o", "plain", "--guide", "uniform", "-j", 1)
    assert (tmp_path / "spots" / "a.jpg").read_bytes() == (
        tmp_path / "plain" / "a.jpg"
    ).read_bytes(), "made at --quality"


def test_all_systems_must_hold_and_a_watched_one_decides_nothing(
    run: Run, tmp_path: Path, coffee: np.ndarray
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    found = {}
    for name, asked in {
        "fine": ["--verify", "contrast"],
        "both": ["--verify", "contrast", "--verify", "coarse"],
        "other": ["--verify", "coarse", "--verify", "contrast"],
        "watched": ["--verify", "coarse", "--watch-with", "contrast"],
    }.items():
        _, said = run("djpeg", "a.jpg", "-o", name, "--guide", "uniform", *asked, "-j", 1)
        found[name] = rows(tmp_path / name)["a.jpg"]
        assert (
            "verified for "
            + " and ".join(asked[1:4:2] if name in ("both", "other") else [asked[1]])
            in said
        )
    assert (
        found["both"]["output_bytes"]
        == found["other"]["output_bytes"]
        == found["fine"]["output_bytes"]
    )
    assert found["both"]["verify_score"] == {"contrast": 1.0, "coarse": 1.0}
    watched = found["watched"]
    assert watched["verified"] is True
    assert watched["verify_score"] == {"coarse": 1.0}
    assert watched["watch_same"] == {"contrast": False}
    assert watched["watch_score"] == {"contrast": 0.0}
    assert "watched with contrast: 0 of 1 photos seen alike" in said
    assert int(str(watched["output_bytes"])) < int(str(found["both"]["output_bytes"]))
    csv = (tmp_path / "both" / "report.csv").read_text("utf-8")
    assert "contrast=1.0; coarse=1.0" in csv
    html = (tmp_path / "watched" / "report.html").read_text("utf-8")
    assert "Watched with contrast" in html
    run("djpeg", "a.jpg", "-o", "x", "--verify", "coarse", "--watch-with", "coarse", code=2)


def test_a_system_that_watched_and_saw_nothing_is_told(
    run: Run, tmp_path: Path, coffee: np.ndarray
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    blind = CallableSystem(lambda image: [], "text", name="blind")
    _, said = run(
        "djpeg", "a.jpg", "-o", "o", "--guide", "uniform", "--watch-with", blind.name, "-j", 1
    )
    assert "watched with blind: it finds nothing on any source" in said
    assert rows(tmp_path / "o")["a.jpg"]["watch_same"] == {}
    totals = json.loads((tmp_path / "o" / "report.json").read_text("utf-8"))["totals"]
    assert totals["watched"] == {"blind": {"photos": 0, "same": 0}}
    assert "it finds nothing on any source" in (tmp_path / "o" / "report.html").read_text("utf-8")


def test_resume_notices_a_model_its_json_and_its_weights(
    run: Run, tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnx

    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    weights = onnx.numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    values = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [4, 4]) for n in "xy"]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Add", ["x", "w"], ["y"])], "g", values[:1], values[1:], [weights]
    )
    onnx.save(
        onnx.helper.make_model(graph),
        "own.onnx",
        save_as_external_data=True,
        location="own.weights",
        size_threshold=0,
    )
    assert [name.split()[0] for name in judges.beside("own.onnx")] == ["own.weights"]
    assert judges.beside("own.onnx:crop=0.5") == judges.beside("own.onnx")
    real = judges.open_system
    monkeypatch.setattr(
        judges,
        "open_system",
        lambda name, *, offline=False: Counted() if name == "own.onnx" else real(name),
    )
    asked: list[int] = []

    class Counted(Contrast):
        def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
            asked.append(len(images))
            return super().answers(images)

    def state() -> str:
        asked.clear()
        run(
            "djpeg",
            "a.jpg",
            "-o",
            "out",
            "--guide",
            "uniform",
            "--verify",
            "own.onnx",
            "-j",
            1,
            "--resume",
        )
        return "made" if asked else "skipped"

    assert state() == "made"
    assert state() == "skipped"
    for name, content in (
        ("own.json", "{}"),
        ("own.weights", "other"),
        ("own.json", '{"range": 255}'),
    ):
        (tmp_path / name).write_text(content)
        assert (state(), state()) == ("made", "skipped"), name


def test_no_verified_file_is_made_below_the_least_quality(
    run: Run, tmp_path: Path, coffee: np.ndarray
) -> None:
    (tmp_path / "a.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    for least, quality in ((0, RUNGS[0][0]), (None, MIN_QUALITY), (27, 27), (100, 100)):
        option = [] if least is None else ["--min-quality", least]
        run(
            "djpeg",
            "a.jpg",
            "-o",
            f"out{least}",
            "--guide",
            "uniform",
            "--verify",
            "coarse",
            *option,
            "-j",
            1,
        )
        assert rows(tmp_path / f"out{least}")["a.jpg"]["quality"] == quality
    for least in range(101):
        rungs = rungs_from(least)
        assert min(q for q, _ in rungs) == max(least, RUNGS[0][0])
        assert len(set(rungs)) == len(rungs)


def photos(folder: Path, coffee: np.ndarray, cat: np.ndarray) -> Path:
    folder.mkdir()
    (folder / "coffee.jpg").write_bytes(jpeg_bytes(coffee, quality=95))
    Image.fromarray(cat[:200, :300]).save(folder / "cat.png")
    return folder


def rows(path: Path) -> dict[str, dict[str, object]]:
    return {
        Path(r["input"]).name: r
        for r in json.loads((path / "report.json").read_text("utf-8"))["files"]
    }


def seen(path: Path) -> np.ndarray:
    pixels = load(path).pixels
    return np.repeat(pixels[..., None], 3, 2) if pixels.ndim == 2 else pixels


def test_djpeg_writes_the_smallest_file_that_is_seen_alike(
    run: Run, tmp_path: Path, coffee: np.ndarray, cat: np.ndarray
) -> None:
    sources = photos(tmp_path / "in", coffee, cat)
    _, said = run(
        "djpeg", sources, "-o", "out", "--guide", "uniform", "--verify", "contrast", "-j", 1
    )
    assert "verified for contrast: 2 of 2 photos" in said
    system = Contrast()
    for name, row in rows(tmp_path / "out").items():
        assert row["verified"] is True
        assert row["verify_score"] == {"contrast": 1.0}
        # of ours, and of plain JPEG where it is smaller
        assert 1 <= int(str(row["verify_trials"])) <= 2 * max(trials for _, trials in TRIALS) + 1
        before, after = system.answers([seen(sources / name), seen(Path(str(row["output"])))])
        assert compare(before, after).same
    run("djpeg", sources, "-o", "loose", "--guide", "uniform", "--verify", "coarse", "-j", 1)
    for name, row in rows(tmp_path / "loose").items():
        assert row["quality"] == MIN_QUALITY
        assert int(str(row["output_bytes"])) < int(
            str(rows(tmp_path / "out")[name]["output_bytes"])
        )


def test_what_cannot_be_reached_is_not_called_verified(
    run: Run, tmp_path: Path, coffee: np.ndarray, cat: np.ndarray
) -> None:
    sources = photos(tmp_path / "in", coffee, cat)
    _, said = run("djpeg", sources, "-o", "out", "--guide", "uniform", "--verify", "never", "-j", 1)
    found = rows(tmp_path / "out")
    jpeg, other = found["coffee.jpg"], found["cat.png"]
    assert (tmp_path / "out" / "coffee.jpg").read_bytes() == (sources / "coffee.jpg").read_bytes()
    assert jpeg["status"] == "kept"
    assert other["verified"] is False
    assert other["verify_state"] == "not_reached"
    assert other["verify_score"]["never"] < 1  # type: ignore[index]
    assert "not verified" in str(other["notices"])
    assert "verified for never: 1 of 2" in said


def test_a_system_that_fails_on_a_photo_costs_that_photo(
    run: Run, tmp_path: Path, coffee: np.ndarray, cat: np.ndarray
) -> None:
    sources = photos(tmp_path / "in", coffee, cat)
    Image.fromarray(np.full((64, 64, 3), 250, np.uint8)).save(sources / "bright.png")
    for option in (
        ["--verify", "throws", "--guide", "uniform"],
        ["--guide", "system:contrast", "--verify", "throws"],
    ):
        run("djpeg", sources, "-o", "out", *option, "-j", 1, "--overwrite", code=1)
        found = rows(tmp_path / "out")
        assert found["bright.png"]["status"] == "failed"
        assert "the vision system throws fails: too bright to see" in str(
            found["bright.png"]["error"]
        )
        assert found["cat.png"]["status"] == found["coffee.jpg"]["status"] == "ok"


def test_the_system_guide_spends_where_the_system_looks(
    run: Run, tmp_path: Path, coffee: np.ndarray, cat: np.ndarray
) -> None:
    sources = photos(tmp_path / "in", coffee, cat)
    run("djpeg", sources, "-o", "flat", "--guide", "uniform", "-j", 1)
    run("djpeg", sources, "-o", "looked", "--guide", "system:contrast", "--strength", 1, "-j", 1)
    run("djpeg", sources, "-o", "both", "--guide", "detail+system:contrast", "-j", 1)
    source, flat, looked = (
        seen(p).astype(float)
        for p in (sources / "coffee.jpg", Path("flat/coffee.jpg"), Path("looked/coffee.jpg"))
    )
    half = source.shape[1] // 2
    left = (
        np.abs(looked - source)[:, : half - 16].mean()
        / np.abs(flat - source)[:, : half - 16].mean()
    )
    right = (
        np.abs(looked - source)[:, half + 16 :].mean()
        / np.abs(flat - source)[:, half + 16 :].mean()
    )
    assert left < 1.1
    assert right > left + 0.2
    assert Path("looked/coffee.jpg").stat().st_size < Path("flat/coffee.jpg").stat().st_size
    assert Path("both/coffee.jpg").is_file()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["djpeg", "in", "-o", "out", "--verify", "nobody"], "unknown vision system 'nobody'"),
        (
            ["djpeg", "in", "-o", "out", "--guide", "system:nobody"],
            "unknown vision system 'nobody'",
        ),
        (["djpeg", "in", "-o", "out", "--guide", "system:"], "system:"),
        (
            ["djpeg", "in", "-o", "out", "--verify", "contrast", "--target-size", "9kB"],
            "contradict",
        ),
        (["djpeg", "in", "-o", "out", "--verify", "gone.onnx"], "gone.onnx is not there"),
        (["encode", "in", "-o", "set.vzc", "--pack", "--verify", "contrast"], "cannot go together"),
        (["encode", "in", "-o", "out", "--verify", "nobody"], "unknown vision system 'nobody'"),
    ],
)
def test_what_is_wrong_is_said_before_the_first_photo(
    run: Run, tmp_path: Path, coffee: np.ndarray, cat: np.ndarray, arguments: list[str], words: str
) -> None:
    photos(tmp_path / "in", coffee, cat)
    _, said = run(*arguments, code=2)
    assert words in said
    assert not list(tmp_path.glob("out/*.jpg"))


def test_encode_keeps_the_fewest_iterations(
    run: Run, tmp_path: Path, cat: np.ndarray, any_model: Path
) -> None:
    from vizcomp.neural.codec import NeuralCodec

    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(cat[:96, :80]).save(folder / "large.png")
    for i in range(3):
        Image.fromarray(cat[40 * i : 40 * i + 32, :32]).save(folder / f"{i}.png")
    Image.fromarray(cat[:32, 50:82, 0]).save(folder / "grey.png")
    _, out = run(
        "encode",
        folder,
        "-o",
        "coarse",
        "--model",
        any_model,
        "--verify",
        "coarse",
        "--json",
        "-j",
        1,
    )
    found = json.loads(out[: out.rindex("}") + 1])["files"]
    assert [row["iterations"] for row in found] == [1] * 5
    assert all(row["verified"] and row["verify_score"] == {"coarse": 1} for row in found)
    assert all(row["verify_state"] == "verified" for row in found)
    _, out = run(
        "encode",
        folder,
        "-o",
        "never",
        "--model",
        any_model,
        "--verify",
        "never",
        "--json",
        "-j",
        1,
    )
    codec = NeuralCodec.load(str(any_model))
    for row in json.loads(out[: out.rindex("}") + 1])["files"]:
        assert row["verified"] is False
        assert row["verify_state"] == "not_reached"
        assert row["iterations"] == codec.iterations
        assert "not verified: never answers otherwise" in row["notices"][-1]
        assert Path(row["output"]).is_file()
    two = ["--verify", "coarse", "--verify", "never"]
    _, out = run(
        "encode", folder / "0.png", "-o", "two", "--model", any_model, *two, "--json", "-j", 1
    )
    report = json.loads(out[: out.rindex("}") + 1])
    assert report["totals"]["not_reached"] == 1
    assert set(report["files"][0]["verify_score"]) == {"coarse", "never"}
    assert [system["name"] for system in report["settings"]["systems"]] == ["coarse", "never"]
    _, out = run(
        "encode",
        folder / "0.png",
        "-o",
        "none",
        "--model",
        any_model,
        "--verify",
        "nothing",
        "--json",
        "-j",
        1,
    )
    report = json.loads(out[: out.rindex("}") + 1])
    assert report["totals"]["nothing_to_verify"] == 1
    assert report["files"][0]["verified"] is False
    assert "nothing to verify" in report["files"][0]["notices"][-1]
    _, out = run(
        "encode",
        folder,
        "-o",
        "real",
        "--model",
        any_model,
        "--verify",
        "contrast",
        "--json",
        "-j",
        1,
    )
    system = Contrast()
    for row in json.loads(out[: out.rindex("}") + 1])["files"]:
        decoded = codec.decode(Path(row["output"]).read_bytes()).image
        decoded = np.repeat(decoded[..., None], 3, 2) if decoded.ndim == 2 else decoded
        same = compare(*system.answers([seen(Path(row["input"])), decoded])).same
        assert row["verified"] is same
        assert row["output_bytes"] == Path(row["output"]).stat().st_size


def test_a_record_has_the_rival_at_the_same_setting_and_at_the_same_bytes(
    run: Run, tmp_path: Path, coffee: np.ndarray
) -> None:
    from vizcomp.batch.rivals import optimised_jpeg

    Image.fromarray(coffee).save(tmp_path / "a.png")
    run("djpeg", "a.png", "-o", "out", "--guide", "uniform", "-j", 1)
    row: dict[str, Any] = rows(tmp_path / "out")["a.png"]
    photo = load(tmp_path / "a.png")
    assert row["optimised_jpeg_bytes"] == len(optimised_jpeg(photo, 50)) < row["plain_jpeg_bytes"]
    quality, size = row["equal_bytes_quality"], row["output_bytes"]
    assert len(optimised_jpeg(photo, quality)) <= size < len(optimised_jpeg(photo, quality + 1))
    for name, setting in (("jpeg", 50), ("equal_bytes", quality)):
        shown = np.asarray(Image.open(io.BytesIO(optimised_jpeg(photo, setting))))
        assert row[f"{name}_psnr"] == pytest.approx(metrics.psnr(photo.pixels, shown))
        assert row[f"{name}_ms_ssim"] == pytest.approx(metrics.ms_ssim(photo.pixels, shown))
    assert row["format"] == "jpeg"
    totals = json.loads((tmp_path / "out" / "report.json").read_text("utf-8"))["totals"]
    assert totals["optimised_jpeg_bytes"] == row["optimised_jpeg_bytes"]
    assert totals["saving_vs_optimised_jpeg"] == pytest.approx(
        1 - size / row["optimised_jpeg_bytes"]
    )
    assert totals["equal_bytes"]["jpeg_psnr"] == row["equal_bytes_psnr"]
    assert totals["equal_bytes"]["jpeg_better_psnr"] == (row["equal_bytes_psnr"] > row["psnr"])
    assert "PSNR at equal bytes" in (tmp_path / "out" / "report.html").read_text("utf-8")


def test_plain_jpeg_is_searched_at_our_bytes_on_a_sample(
    run: Run, tmp_path: Path, cat: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_single, "SAMPLE", 1)
    for name in ("a.png", "b.png"):
        Image.fromarray(cat[:200, :300]).save(tmp_path / name)
    run("djpeg", "a.png", "b.png", "-o", "out", "--guide", "uniform", "-j", 1)
    found = rows(tmp_path / "out")
    assert [found[name]["equal_bytes_quality"] is None for name in ("a.png", "b.png")] == [
        False,
        True,
    ]
    assert all(row["optimised_jpeg_bytes"] for row in found.values())


def scored(*scores: float, below: tuple[float, ...] = ()) -> Boxes:
    """Boxes in a row by their scores; those of `below` follow them."""

    def some(first: int, values: tuple[float, ...], **more: Any) -> Boxes:
        quads = np.concatenate(
            [square(100 * (first + i)) for i in range(len(values))] or [np.zeros((0, 4, 2))]
        )
        return Boxes(quads, ("a",) * len(values), (9, 9), np.array(values, np.float32), 0.5, **more)

    return some(0, scores, below=some(len(scores), below))


@pytest.mark.parametrize(
    ("source", "result", "same"),
    [
        (scored(0.9, 0.5015), scored(0.9), True),  # in doubt: not lost
        (scored(0.9, below=(0.4985,)), scored(0.9, 0.5015), True),  # in doubt: not new
        (scored(0.9, 0.51), scored(0.9), False),
        (scored(0.9, 0.51), scored(0.9, 0.506), True),  # half its distance is left
        (scored(0.9, 0.51), scored(0.9, 0.503), False),
        (scored(0.9, below=(0.49,)), scored(0.9, 0.496), False),
        (scored(0.9, below=(0.49,)), scored(0.9, below=(0.494,)), True),
        (scored(0.9, 0.6), scored(0.9, below=(0.49,)), False),
        (scored(0.9, 0.6), scored(0.9, 0.505), False),  # too near to the threshold to rely on
        (scored(0.9, 0.6), scored(0.9, 0.52), True),
        (scored(0.9), scored(0.9, below=(0.495,)), False),  # nearly new
        (scored(0.9), scored(0.9, below=(0.485,)), True),
    ],
)
def test_boxes_about_the_threshold_are_neither_lost_nor_new(
    source: Boxes, result: Boxes, same: bool
) -> None:
    assert verify.compare_views([source] * 2, [result] * 2).same is same


def test_one_view_leaves_no_doubt() -> None:
    assert not verify.compare_views([scored(0.9, 0.5015)], [scored(0.9)]).same
    assert verify.compare_views([scored(0.9, 0.504)], [scored(0.9, 0.503)]).same
    assert not verify.sees_nothing([scored(0.5015)])


def test_another_ladder_is_asked_only_where_it_is_smaller() -> None:
    asked: list[int] = []

    def searched(good: set[int], below: int) -> tuple[int | None, int]:
        def judge(data: bytes) -> Comparison:
            asked.append(len(data))
            return Comparison(1.0, len(data) in good)

        asked.clear()
        found, judged = verify.outdone(
            range(10, 130, 10), bytes, judge, below=below, budget=lambda size: 4
        )
        assert judged == len(asked)
        return (None if found is None else len(found.data)), judged

    assert searched({20, 30, 100}, 35) == (20, 3)  # 30, 10 and 20: halves of the smaller ones
    assert all(size < 35 for size in asked)
    assert searched(set(), 1000)[0] is None
    assert searched({40}, 10) == (None, 0)  # nothing is smaller, and nothing is judged


@given(st.sets(st.integers(1, 16)), st.integers(1, 18))
def test_what_is_kept_is_never_larger_than_what_the_other_search_finds(
    good: set[int], below: int
) -> None:
    def judge(data: bytes) -> Comparison:
        return Comparison(1.0, len(data) in good)

    rival = verify.smallest(range(1, 17), bytes, judge)
    found, _ = verify.outdone(range(1, 17), bytes, judge, below=below, budget=lambda _: 6)
    ours = below if found is None else len(found.data)
    assert ours <= below
    assert not rival.verified or ours <= len(rival.data)


def text(*lines: str) -> Text:
    quads = np.concatenate([square(100 * at) for at in range(len(lines))] or [NOWHERE])
    return Text(lines, quads, (900, 9))


def test_words_that_the_source_is_read_differently_by_are_no_ground() -> None:
    source = [text("STOP", "N0 ENTRY"), text("STOP", "NO ENTRY")]
    for read in ("NO ENTRY", "NQ ENTRY", "EXIT"):
        assert verify.compare_views(source, [text("STOP", read)] * 2).same
    assert not verify.compare_views(source, [text("SLOP", "NO ENTRY")] * 2).same
    assert not verify.compare_views(source[:1], [text("STOP", "NO ENTRY")]).same
    assert verify.sees_nothing([text("N0"), text("NO")])
    assert not verify.sees_nothing(source)


def test_boxes_in_doubt_alone_are_nothing_to_verify() -> None:
    assert verify.sees_nothing([scored(0.5015)] * 2)
    assert not verify.sees_nothing([scored(0.51)] * 2)
    found = verify.compare_views([scored(0.9, 0.8)], [scored(0.9)])
    assert (found.matched, found.reference, found.found) == (1, 2, 1)
    assert found.unlike is not None
    assert len(found.unlike) == 1
    assert verify.compare_views([scored(0.9, 0.8)], [scored(0.9)], tolerance=0.4).same


def test_a_model_is_asked_under_the_filters_of_other_programs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    real = ModelSystem.answer_with

    def answer_with(self: ModelSystem, image: np.ndarray, resize_filter: str) -> Answer | None:
        asked.append(resize_filter)
        return real(self, image, resize_filter)

    monkeypatch.setattr(ModelSystem, "answer_with", answer_with)
    path = str(classifier(tmp_path / "own.onnx"))
    picture = np.zeros((40, 60, 3), np.uint8)
    Panel((path,), picture, BatchSettings(verify=(path,)))
    assert asked == list(verify.OTHER_FILTERS)
    Panel((f"{path}:filter=bilinear",), picture, BatchSettings(verify=(path,)))
    Panel((path,), picture, BatchSettings(verify=(path,), robust=False))
    assert asked == list(verify.OTHER_FILTERS)


@pytest.mark.parametrize(("own", "more"), [("bilinear", "bicubic"), ("bicubic", "bilinear")])
def test_boxes_are_asked_under_one_filter_more(own: str, more: str) -> None:
    assert verify.other_filters("boxes", own) == (*verify.OTHER_FILTERS, more)
    assert verify.other_filters("boxes", own, enlarged=True)[-2:] == (more, "opencv-area")
    assert verify.other_filters("classes", own, enlarged=True) == verify.OTHER_FILTERS


def test_what_is_enlarged_is_judged_under_opencvs_area_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """RapidOCR enlarges photos of less than 736 pixels; INTER_AREA repeats pixels then."""
    system = FakeText()
    monkeypatch.setattr("vizcomp.batch.verdicts.system_by_name", lambda *_: system)
    batch = BatchSettings(verify=("text",), robust=True)
    for side, more in ((600, ["opencv-area"]), (800, [])):
        system.asked.clear()
        panel = Panel(("text",), np.zeros((side, side, 3), np.uint8), batch)
        assert system.asked == ["opencv-lanczos", "bicubic", *more]
        # a smaller result is seen as its source was
        panel.compare(np.zeros((side // 2, side // 2, 3), np.uint8))
        assert system.asked == 2 * ["opencv-lanczos", "bicubic", *more]


@pytest.mark.parametrize("size", [(40, 60), (13, 17), (194, 262), (200, 301), (98, 132), (99, 120)])
def test_views_are_what_opencv_makes(size: tuple[int, int]) -> None:
    cv2 = pytest.importorskip("cv2")
    image = np.random.default_rng(0).integers(0, 256, (97, 131, 3)).astype(np.uint8)
    for kernel, number in (("opencv", cv2.INTER_LINEAR), ("opencv-area", cv2.INTER_AREA)):
        there = cv2.resize(image, size[::-1], interpolation=number)
        mine = view_of(image, size, Fit("stretch", kernel)).pixels
        assert np.abs(mine.astype(int) - there).max() <= 1


class FakeText:
    """As `text` resizes; finds one box everywhere."""

    name, fingerprint, kind, classes, native = "text", "0", "boxes", (), 0
    resize_filter = "opencv"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def enlarges(self, height: int, width: int) -> bool:
        return min(height, width) < 736

    def answers(self, images: Sequence[np.ndarray]) -> list[Answer]:
        return [scored(0.9) for _ in images]

    def answer_with(self, image: np.ndarray, resize_filter: str) -> Answer:
        self.asked.append(resize_filter)
        return scored(0.9)

    def importance(self, image: np.ndarray) -> np.ndarray:
        return np.ones((1, 1), np.float32)


def test_programs_that_resize_by_opencv_know_no_colour_profile(
    tmp_path: Path, coffee: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    plain, told = tmp_path / "plain.jpg", tmp_path / "told.jpg"
    Image.fromarray(coffee).save(plain, quality=95)
    Image.fromarray(coffee).save(told, quality=95, icc_profile=profile)
    showing = BatchSettings(verify=("own.onnx",))
    assert uncoloured(load(plain), showing) is None
    assert uncoloured(load(told), BatchSettings(verify=("a",), decoder="opencv")) is None
    raw = uncoloured(load(told), showing)
    assert raw is not None
    assert (raw == load(plain).pixels).all()
    seen_by: dict[str, set[bool]] = {}
    real = ModelSystem.answer_with

    def answer_with(self: ModelSystem, image: np.ndarray, resize_filter: str) -> Answer | None:
        seen_by.setdefault(resize_filter, set()).add(bool((image == raw).all()))
        return real(self, image, resize_filter)

    monkeypatch.setattr(ModelSystem, "answer_with", answer_with)
    spec = str(classifier(tmp_path / "own.onnx"))
    panel = Panel((spec,), raw // 2, BatchSettings(verify=(spec,)), raw)
    panel.compare(raw // 2, raw)
    assert seen_by == {"opencv": {True}, "opencv-lanczos": {True}}
    data, other = file_views(told.read_bytes(), "told.jpg", showing)
    assert other is not None
    assert data.shape == other.shape
    assert (other == raw).all()


def test_a_letterbox_of_other_programs_is_rounded_down() -> None:
    photo = np.zeros((100, 151, 3), np.uint8)  # at 64 wide 42.4 high; at 66 wide 43.7
    for side, high, less in ((64, 42, 42), (66, 44, 43), (151, 100, 100)):
        for floor, rows in ((False, high), (True, less)):
            fit = Fit("letterbox-corner", "bilinear", grey=9, floor=floor)
            view = view_of(photo, (side, side), fit).pixels
            assert int((view[:, 0] == 0).all(1).sum()) == rows
