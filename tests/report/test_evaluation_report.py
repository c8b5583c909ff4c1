"""The report of `vizcomp eval`: JSON by its schema, CSV, and a page that opens anywhere."""

from __future__ import annotations

import csv
import dataclasses
import html.parser
import io
import json
import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vizcomp.evaluation.results import EvalExample, EvalPoint, EvalResult
from vizcomp.photos.encode import encode_plain_jpeg, encode_png
from vizcomp.report.evaluation import MAX_EXAMPLES, EvaluationReport

HOSTILE = '<script>alert("x")</script>&{{title}}\u202e\x00'


def a_point(codec: str, step: int, *, ours: bool = False, **changes: Any) -> EvalPoint:
    shares: dict[str, Any] = {
        "inception": min(1.0, 0.5 + step / 12),
        HOSTILE: min(1.0, 0.4 + step / 12),
    }
    none: dict[str, Any] = dict.fromkeys(shares)
    values: dict[str, Any] = {
        "codec": codec,
        "setting": f"quality {10 * step}",
        "ours": ours,
        "images": 100,
        "bytes_per_image": 20.0 * 2**step,
        "payload_bytes_per_image": 10.0 * 2**step,
        "bpp": 0.1 * 2**step,
        "accuracy": {"inception": shares["inception"], HOSTILE: None},
        "agreement": shares,
        "top5": none,
        "recall": none,
        "precision": none,
        "interval": {
            "inception": (shares["inception"] - 0.05, shares["inception"] + 0.04),
            HOSTILE: None,
        },
        "psnr": 20.0 + step,
        "ms_ssim": 0.8 + step / 100,
        "encode_seconds": 0.001,
        "decode_seconds": 0.002,
    }
    return EvalPoint(**{**values, **changes})


def an_example(index: int, side: int = 32) -> EvalExample:
    picture = np.random.default_rng(index).integers(0, 255, (side, side, 3), np.uint8)
    data = encode_png(picture) if side < 100 else encode_plain_jpeg(picture, quality=90)
    quad = [(0.1, 0.1), (0.5, 0.1), (0.5, 0.4), (0.1, 0.4)]
    return EvalExample(
        name=f"{index}{HOSTILE}",
        codec="cifar",
        setting="1 iteration",
        result_bytes=22,
        source_bytes=1000,
        source=data,
        result=data,
        answers={
            "inception": ("cat 90%", f"dog {HOSTILE}", False),
            HOSTILE: ("1 box", "1 box", True),
        },
        boxes={HOSTILE: ([quad], [quad, quad])},
        score=0.5,
    )


@pytest.fixture
def result() -> EvalResult:
    points = [a_point("cifar", i, ours=True) for i in range(5)] + [
        a_point("jpeg", i + 3) for i in range(7)
    ]
    points.append(a_point(HOSTILE, 2, psnr=float("nan"), ms_ssim=None))
    return EvalResult(
        headline=f"cifar in 22 bytes an image: inception is right {HOSTILE}.",
        warnings=(f"A warning {HOSTILE}",),
        data={
            "name": HOSTILE,
            "path": "",
            "images": 100,
            "labels": True,
            "width": 32,
            "height": 32,
        },
        classifiers=[
            {
                "name": "inception",
                "kind": "classes",
                "unseen": False,
                "fingerprint": "ab",
                "without_answer": 0,
            },
            {
                "name": HOSTILE,
                "kind": "boxes",
                "unseen": True,
                "fingerprint": "cd",
                "without_answer": 3,
            },
        ],
        source_accuracy={"inception": 0.93, HOSTILE: None},
        points=points,
        bd_rate=[
            {
                "codec": "cifar",
                "anchor": "jpeg",
                "measure": "psnr",
                "bd_rate": -0.5,
                "overlap": [21.0, 24.0],
                "why": "",
            },
            {
                "codec": "cifar",
                "anchor": HOSTILE,
                "measure": "ms_ssim",
                "bd_rate": None,
                "overlap": None,
                "why": "no overlap",
            },
        ],
        equal=[
            {
                "measure": "accuracy:inception",
                "level": 0.9,
                "codec": "cifar",
                "bytes": 20.0,
                "anchor": "jpeg",
                "anchor_bytes": None,
                "saving": None,
            }
        ],
        reference_points=[
            {
                "name": f"study {HOSTILE}",
                "bytes": 16.0,
                "value": 0.471,
                "measure": "accuracy:inception",
                "source": "its log",
            }
        ],
        gallery=[an_example(i) for i in range(30)],
        codecs=[{"name": "cifar", "ours": True, "version": "1", "fingerprint": "00"}],
        versions={"numpy": "2"},
    )


def report(result: EvalResult) -> EvaluationReport:
    return EvaluationReport(
        tool="vizcomp eval",
        version="1",
        settings={"limit": 3},
        result=result,
        command=f"vizcomp eval {HOSTILE}",
    )


def test_the_json_is_strict_and_fits_its_schema(result: EvalResult, tmp_path: Path) -> None:
    paths = report(result).write(tmp_path / "new" / "folder")
    written = json.loads(paths.json.read_text(), parse_constant=lambda name: pytest.fail(name))
    assert written["points"][-1]["psnr"] is None
    assert written["points"][0]["accuracy"] == {"inception": 0.5, HOSTILE: None}
    assert written["points"][0]["interval"]["inception"] == pytest.approx([0.45, 0.54])
    import jsonschema

    schema = json.loads(files("vizcomp").joinpath("bundled", "eval_report.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(written, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(
            {**written, "points": [{**written["points"][0], "bytes_per_image": 0}]}, schema
        )


def test_the_csv_has_a_row_for_each_point_and_columns_for_each_system(result: EvalResult) -> None:
    rows = list(csv.DictReader(io.StringIO("".join(report(result).csv_chunks()), newline="")))
    assert len(rows) == len(result.points)
    assert float(rows[0]["accuracy:inception"]) == 0.5
    assert float(rows[0]["interval_high:inception"]) == pytest.approx(0.54)
    assert rows[0]["codec"] == "cifar"
    assert rows[-1]["psnr"] == ""
    assert len(rows[0]) == 12 + 2 * 7


class Page(html.parser.HTMLParser):
    """What a page is made of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.ids: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if (identity := dict(attrs).get("id")) is not None:
            self.ids.append(identity)


def test_the_page_loads_nothing_and_runs_no_strings(result: EvalResult) -> None:
    text = report(result).html()
    page = Page(text)
    assert "{{" not in text.replace("{{title}}", "")
    assert 'alert("x")' not in text
    assert "\u202e" not in text
    assert [tag for tag, _ in page.tags].count("script") == 2
    assert len(page.ids) == len(set(page.ids))
    for tag, attributes in page.tags:
        for name in ("src", "href"):
            assert not re.match(r"(?i)\s*(https?:|//|javascript:)", attributes.get(name) or ""), (
                tag,
                attributes,
            )
        if tag == "img":
            assert attributes["alt"]
        if attributes.get("aria-labelledby"):
            assert attributes["aria-labelledby"] in page.ids
    assert {"img", "svg"} & {tag for tag, _ in page.tags}
    assert any("aria-labelledby" in attributes for _, attributes in page.tags)
    assert sum(a.get("role") == "img" for _, a in page.tags) == 4
    assert sum(a.get("type") == "range" for _, a in page.tags) == MAX_EXAMPLES
    assert "Bytes at equal accuracy" in text
    assert "no overlap" in text
    assert "✗ different" in text
    assert "✓ same" in text


def test_the_page_stays_below_three_megabytes(result: EvalResult) -> None:
    large = dataclasses.replace(result, gallery=[an_example(i, 640) for i in range(24)])
    text = report(large).html()
    assert len(text.encode()) < 3_000_000
    assert text.count("<article") < 24


def test_a_page_of_nothing_still_says_so(result: EvalResult) -> None:
    empty = dataclasses.replace(
        result,
        points=[],
        bd_rate=[],
        equal=[],
        gallery=[],
        headline="Nothing was measured.",
        interrupted=True,
    )
    text = report(empty).html()
    assert "Nothing was measured." in text
    assert "Interrupted" in text
    assert "<figure" not in text


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_opens_in_chromium(result: EvalResult, tmp_path: Path, width: int) -> None:
    browser = next(
        (b for n in ("chromium", "chromium-browser", "google-chrome") if (b := shutil.which(n))),
        None,
    )
    if browser is None:
        pytest.skip("no Chromium here")
    paths = report(result).write(tmp_path)
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--enable-logging=stderr",
        f"--window-size={width},3000",
    ]
    options += [f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={tmp_path / 'page.png'}"]
    run = subprocess.run(
        [browser, *options, paths.html.as_uri()], capture_output=True, text=True, timeout=600
    )
    assert (tmp_path / "page.png").stat().st_size > 20_000
    assert "CONSOLE" not in run.stderr  # neither script errors nor refused loads


def test_intervals_lie_below_all_curves_and_a_flat_curve_has_a_scale(result: EvalResult) -> None:
    from vizcomp.report.charts import charts

    flat = result
    points = [
        dataclasses.replace(point, agreement={"inception": 1.0}, accuracy={"inception": 1.0})
        for point in flat.points
    ]
    flat = dataclasses.replace(flat, points=points)
    (chart, *_) = charts(flat)
    labels = [tick.label for tick in chart.values]
    assert len(labels) > 3
    assert "100%" in labels
    text = report(flat).html()
    figure = text[text.index('<figure class="plot chart"') :]
    figure = figure[: figure.index("</figure>")]
    assert figure.index('class="spread') < figure.index('class="curve"')
    assert figure.rindex('class="spread') < figure.index('class="curve"')
