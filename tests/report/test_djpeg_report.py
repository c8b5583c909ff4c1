"""The report: what stands in its three files is what the records say, and no string breaks out of
its place."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import os
import re
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vizcomp.batch.near import near_totals
from vizcomp.batch.records import FileRecord, GalleryItem, Totals
from vizcomp.batch.rivals import rival_totals
from vizcomp.errors import OutputError
from vizcomp.report import page as pages
from vizcomp.report import tables
from vizcomp.report.djpeg import DjpegReport

SETTINGS = {
    "quality": 50,
    "strength": 0.5,
    "target_size": None,
    "keep_dates": False,
    "depth_model": "compact",
}
HOSTILE = [
    "photos/<img src=x onerror=alert(1)>.jpg",
    "photos/\"><script>alert('x')</script>.jpg",
    "photos/' onload='alert(1).jpg",
    "photos/&lt;b&gt;.jpg",
    "photos/]]></title></svg><script>alert(2)</script>.jpg",
    "photos/{{command}}{{gallery}}.jpg",
    "photos/two\nlines\r\n.jpg",
    "photos/日本語 é.jpg",
    "photos/\u202egpj.exe",
    os.fsdecode(b"photos/latin-\xe9\xff.jpg"),
]


def record(name: str = "photos/a.jpg", **changes: Any) -> FileRecord:
    values = {
        "input": name,
        "output": "out/a.jpg",
        "status": "ok",
        "width": 640,
        "height": 480,
        "source_bytes": 80_000,
        "output_bytes": 15_000,
        "plain_jpeg_bytes": 25_000,
        "optimised_jpeg_bytes": changes.get("plain_jpeg_bytes", 25_000),
        "psnr": 33.25,
        "ms_ssim": 0.9712,
        "seconds": 0.031,
        "quality": 50.0,
    }
    return FileRecord(**{**values, **changes})


def failed(name: str, error: str = "the file is empty") -> FileRecord:
    return FileRecord(input=name, output=None, status="failed", error=error, seconds=0.001)


def totals(files: list[FileRecord]) -> Totals:
    done = [one for one in files if one.status in ("ok", "kept")]
    source, plain = sum(one.source_bytes for one in done), sum(one.plain_jpeg_bytes for one in done)
    output = sum(one.output_bytes for one in done)
    return Totals(
        files=len(files),
        failed=sum(one.status == "failed" for one in files),
        skipped=sum(one.status == "skipped" for one in files),
        source_bytes=source,
        output_bytes=output,
        plain_jpeg_bytes=plain,
        saving_vs_source=1 - output / source if source else 0.0,
        saving_vs_plain_jpeg=1 - output / plain if plain else 0.0,
        optimised_jpeg_bytes=sum(one.optimised_jpeg_bytes for one in done),
        saving_vs_optimised_jpeg=1 - output / plain if plain else 0.0,
        seconds=2.5,
        megapixels_per_second=12.34,
        verified=sum(one.verify_state == "verified" for one in done),
        nothing_to_verify=sum(one.verify_state == "nothing" for one in done),
        not_reached=sum(one.verify_state == "not_reached" for one in done),
    )


def jpeg(width: int = 48, height: int = 32, mode: str = "RGB") -> bytes:
    pixels = np.linspace(0, 255, width * height * 3).reshape(height, width, 3).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(buffer, "JPEG", progressive=mode == "L")
    return buffer.getvalue()


def report(files: list[FileRecord], **changes: Any) -> DjpegReport:
    values: dict[str, Any] = {
        "tool": "vizcomp djpeg",
        "version": "1.2.3",
        "settings": SETTINGS,
        "totals": totals(files),
        "files": files,
        "command": "vizcomp djpeg photos/ -o out",
    }
    return DjpegReport(**{**values, **changes})


def write(
    folder: Path, files: list[FileRecord], gallery: list[GalleryItem] | None = None, **changes: Any
) -> pages.ReportPaths:
    return report(files, **changes).write(folder, gallery or [])


class Page(HTMLParser):
    """Elements, attributes, text, and the rows of the table of files."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._quiet = ""
        self._cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag in ("script", "style"):
            self._quiet = tag
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag == self._quiet:
            self._quiet = ""
        if tag in ("tbody", "table"):
            self._cell = False

    def handle_data(self, data: str) -> None:
        if self._quiet:
            return
        self.text += data
        if self._cell:
            self.rows[-1][-1] += data.rstrip("\n")

    def count(self, tag: str) -> int:
        return sum(name == tag for name, _ in self.elements)

    def file_rows(self) -> list[list[str]]:
        return [row for row in self.rows if len(row) == 13][1:]


def page_of(paths: pages.ReportPaths) -> Page:
    return Page(paths.html.read_text("utf-8"))


def assert_inert(page: Page, text: str, images: int = 0) -> None:
    """No reference leaves the file, no handler, no element that a string brought in."""
    assert page.count("script") == 2
    assert page.count("img") == images
    for tag, attributes in page.elements:
        assert tag not in (
            "iframe",
            "object",
            "embed",
            "link",
            "base",
            "form",
            "audio",
            "video",
            "image",
            "use",
        )
        for name, value in attributes.items():
            assert not name.startswith("on"), (tag, name)
            if name == "src":
                assert value is not None
                assert value.startswith("data:image/jpeg;base64,")
            if name == "href":
                assert value in ("report.csv", "report.json") or (value or "").startswith("#")
    assert not re.search(
        r"https?:|//[a-z]|@import|url\(", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text)
    )
    policies = [
        one.get("content") for tag, one in page.elements if tag == "meta" and "http-equiv" in one
    ]
    expected = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
    )
    assert len(policies) == 1
    assert (policies[0] or "").startswith(expected)


def unescape_csv(cell: str) -> str:
    """The inverse that docs/report.md gives."""
    cell = cell.removeprefix("'")
    return re.sub(
        r"\\(\\|x..|u....)",
        lambda m: (
            "\\" if m[1] == "\\" else chr(int(m[1][1:], 16) + (0xDC00 if m[1][0] == "x" else 0))
        ),
        cell,
    )


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def test_json_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    files = [record(), failed("photos/b.jpg")]
    text = write(tmp_path, files).json.read_text("ascii")
    got = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert {"tool", "version", "settings", "totals", "files"} <= got.keys()
    assert got["settings"] == SETTINGS
    assert got["totals"] == totals(files).to_dict()
    assert {
        "files",
        "failed",
        "source_bytes",
        "output_bytes",
        "plain_jpeg_bytes",
        "saving_vs_source",
        "saving_vs_plain_jpeg",
        "seconds",
        "megapixels_per_second",
    } <= got["totals"].keys()
    assert {
        "input",
        "output",
        "status",
        "error",
        "width",
        "height",
        "source_bytes",
        "output_bytes",
        "plain_jpeg_bytes",
        "psnr",
        "ms_ssim",
        "seconds",
    } <= got["files"][0].keys()
    assert [FileRecord.from_dict(one) for one in got["files"]] == files


def test_json_is_strict_and_takes_any_setting() -> None:
    settings = {
        "folder": Path("a/b"),
        "limits": (1, 2),
        "bad": float("nan"),
        "worse": [float("inf")],
        "n": np.float32(0.5),
    }
    files = [record(psnr=float("inf"))]
    text = "".join(report(files, settings=settings).json_chunks())
    got = json.loads(text)
    assert got["settings"] == {
        "folder": "a/b",
        "limits": [1, 2],
        "bad": None,
        "worse": [None],
        "n": 0.5,
    }
    assert got["files"][0]["psnr"] is None
    files_again = got.pop("files")
    assert "".join(tables.report_chunks(got, files_again)) == text


def test_json_of_nothing_is_json() -> None:
    text = "".join(report([], settings={}).json_chunks())
    got = json.loads(text)
    assert got["files"] == []
    files_again = got.pop("files")
    assert "".join(tables.report_chunks(got, files_again)) == text


def test_names_come_back_from_json_and_csv(tmp_path: Path) -> None:
    names = [
        *HOSTILE,
        "=1+1.jpg",
        "-x.jpg",
        "'quoted.jpg",
        "a,b;c\t.jpg",
        "back\\slash \\xe9.jpg",
        " =x.jpg",
        "@cmd",
        "+1",
        "＝1",
    ]
    paths = write(tmp_path, [record(name) for name in names])
    assert [one["input"] for one in json.loads(paths.json.read_text("ascii"))["files"]] == names
    rows = read_csv(paths.csv)
    assert [unescape_csv(row["input"]) for row in rows] == names


def test_csv_is_one_row_for_each_input(tmp_path: Path) -> None:
    files = [
        record(notices=("alpha flattened", "first frame")),
        failed("photos/b.jpg", '=HYPERLINK("http://x")'),
        record(psnr=None),
    ]
    paths = write(tmp_path, files)
    raw = paths.csv.read_bytes()
    assert raw.startswith(
        b"input,output,status,error,width,height,source_bytes,output_bytes,plain_jpeg_bytes,psnr,ms_ssim,seconds,"
    )
    assert raw.count(b"\r\n") == raw.count(b"\n") == len(files) + 1
    rows = read_csv(paths.csv)
    assert list(rows[0]) == [field.name for field in dataclasses.fields(FileRecord)]
    for row, one in zip(rows, files, strict=True):
        for name in (
            "width",
            "height",
            "source_bytes",
            "output_bytes",
            "plain_jpeg_bytes",
            "psnr",
            "ms_ssim",
            "seconds",
        ):
            value = getattr(one, name)
            assert row[name] == "" if value is None else float(row[name]) == value
    assert rows[0]["notices"] == "alpha flattened; first frame"
    assert rows[1]["error"] == '\'=HYPERLINK("http://x")'


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", " =", "＝", "＋"])
def test_csv_starts_no_formula(start: str) -> None:
    rows = list(
        csv.DictReader(
            io.StringIO(
                "".join(report([failed(f"{start}1", f"{start}2")]).csv_chunks()), newline=""
            )
        )
    )
    assert rows[0]["input"] == f"'{start}1"
    assert rows[0]["error"] == f"'{start}2"


def test_hostile_strings_are_inert(tmp_path: Path) -> None:
    files = [record(name, notices=(name,)) for name in HOSTILE] + [
        failed(name, name) for name in HOSTILE
    ]
    gallery = [
        GalleryItem(name=name, caption=name, source=jpeg(), result=jpeg(), depth=jpeg(mode="L"))
        for name in HOSTILE
    ]
    bad = HOSTILE[1]
    paths = write(
        tmp_path,
        files,
        gallery,
        command=bad,
        tool=bad,
        version=bad,
        settings={bad: bad, "nested": {bad: [bad]}},
    )
    text = paths.html.read_text("utf-8")
    page = page_of(paths)
    assert_inert(page, text, images=3 * len(HOSTILE))
    assert "{{command}}{{gallery}}.jpg" in page.text
    assert "\u202e" not in text
    assert "latin-\\xe9\\xff.jpg" in page.text
    assert sum(tag == "article" for tag, _ in page.elements) == len(HOSTILE)


def test_hostile_strings_are_inert_in_the_other_plots() -> None:
    for copies in (5, 40):  # columns, then a histogram
        files = [record(f"{name}{index}") for name in HOSTILE for index in range(copies)]
        text = report(files, settings={}, command="").html()
        assert_inert(Page(text), text)


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("<script>alert(1).jpg", "<script>alert(1).jpg"),
        ("\"quoted\" and 'quoted'.jpg", "\"quoted\" and 'quoted'.jpg"),
        (
            "{{ 7*7 }}{% include 'page.css' %}{# no #}.jpg",
            "{{ 7*7 }}{% include 'page.css' %}{# no #}.jpg",
        ),
        ("low \udcff, high \ud800.jpg", "low \\xff, high \\ud800.jpg"),
        ("bell \x07, turned \u202e.jpg", "bell \\x07, turned \\u202e.jpg"),
    ],
)
def test_names_are_text_wherever_they_stand(tmp_path: Path, name: str, shown: str) -> None:
    gallery = [GalleryItem(name=name, caption=name, source=jpeg(), result=jpeg(), depth=jpeg())]
    paths = write(
        tmp_path,
        [record(name), failed(name, name)],
        gallery,
        command=name,
        tool=name,
        version=name,
        settings={name: name},
    )
    text = paths.html.read_text("utf-8")
    page = page_of(paths)
    assert_inert(page, text, images=3)
    # the title; header 2, tooltip 1, gallery 2, table 3, command 1, settings 2, footer 2; and the
    # plot's label if it is not cut
    assert page.text.count(shown) == 14 + (len(name) <= 30)
    alternatives = [attributes["alt"] for tag, attributes in page.elements if tag == "img"]
    assert alternatives == [f"{shown}, source", f"{shown}, result", f"Depth map of {shown}"]


def test_figures_shown_are_those_given(tmp_path: Path) -> None:
    files = [
        record(),
        record("photos/b.png", source_bytes=1_234_567, psnr=None, ms_ssim=1.0, status="kept"),
    ]
    gallery = [
        GalleryItem(
            name="photos/a.jpg", caption="A caption.", source=jpeg(), result=jpeg(), depth=jpeg()
        )
    ]
    sums = dataclasses.replace(
        totals(files),
        saving_vs_optimised_jpeg=0.4213,
        saving_vs_source=0.6127,
        output_bytes=1_434_000,
    )
    page = page_of(write(tmp_path, files, gallery, totals=sums))
    shown = " ".join(page.text.replace("\u202f", " ").split())
    assert "42.1% smaller than optimised plain JPEG" in shown
    assert "61.3% smaller" in shown
    assert "1.31 MB → 1.43 MB" in shown
    assert "12.3 MP/s" in shown
    assert "1 kept as they were" in shown
    assert "vizcomp djpeg photos/ -o out" in shown
    assert "1.2.3" in shown
    assert "A caption." in shown
    assert "33.25 dB" in shown
    assert page.file_rows() == [
        [
            "a.jpg",
            "ok",
            "640×480",
            "50",
            "80.0",
            "25.0",
            "15.0",
            "40.0%",
            "81.2%",
            "33.25",
            "0.9712",
            "0.031",
            "",
        ],
        [
            "b.png",
            "kept",
            "640×480",
            "50",
            "1,234.6",
            "25.0",
            "15.0",
            "40.0%",
            "98.8%",
            "identical",
            "1.0000",
            "0.031",
            "",
        ],
    ]


def test_larger_is_said_honestly(tmp_path: Path) -> None:
    files = [record(output_bytes=100_000)]
    page = page_of(write(tmp_path, files))
    shown = " ".join(page.text.split())
    assert "300.0% larger than optimised plain JPEG" in shown
    assert "25.0% larger" in shown
    assert "smaller" not in shown
    assert "1 file more than doubled" in shown
    assert page.file_rows()[0][7:9] == ["−300.0%", "−25.0%"]


def test_verified_photos_are_counted(tmp_path: Path) -> None:
    files = [
        record(name="a.png", verified=True, verify_state="verified", verify_trials=5),
        record(name="b.png", verified=False, verify_state="not_reached", verify_trials=8),
        record(name="n.png", verified=False, verify_state="nothing"),
        record(name="c.png"),
    ]
    text = page_of(write(tmp_path / "n", files)).text.replace("\n", "")
    assert "Nothing to verify1no answer on the source" in text
    assert "1 of 2seen as the source is, 6.5 trials each" in page_of(
        write(tmp_path / "a", files)
    ).text.replace("\n", "")
    assert "seen as the source is" not in page_of(write(tmp_path / "b", files[3:])).text


def test_empty_batch(tmp_path: Path) -> None:
    paths = write(tmp_path / "new" / "folder", [])
    page = page_of(paths)
    assert "No files" in page.text
    assert page.count("svg") == 0
    assert page.file_rows() == []
    assert read_csv(paths.csv) == []
    assert_inert(page, paths.html.read_text("utf-8"))


def test_all_failed(tmp_path: Path) -> None:
    page = page_of(write(tmp_path, [failed(f"photos/{index}.jpg") for index in range(3)]))
    assert "3 of 3 files failed." in page.text
    assert "No file was written" in page.text
    assert "%" not in page.text.split("Savings by file")[0].split("40% means")[0]
    assert page.count("svg") == 0
    assert [row[1] for row in page.file_rows()] == ["failed"] * 3
    assert [row[-1] for row in page.file_rows()] == ["the file is empty"] * 3


def test_interrupted_is_said(tmp_path: Path) -> None:
    assert "Interrupted." in page_of(write(tmp_path / "a", [record()], interrupted=True)).text
    assert "Interrupted." not in page_of(write(tmp_path / "b", [record()])).text


@pytest.mark.parametrize(("number", "bars"), [(1, 1), (12, 12), (13, 13), (200, 200)])
def test_plot_has_one_mark_for_each_file(tmp_path: Path, number: int, bars: int) -> None:
    files = [
        record(f"photos/{index:03d}.jpg", output_bytes=15_000 - index) for index in range(number)
    ]
    page = page_of(write(tmp_path, files))
    assert sum(tag == "rect" and one.get("class") == "p" for tag, one in page.elements) == bars
    assert page.text.count("against optimised JPEG, 81") == bars  # the tooltips
    drawing = next(one for tag, one in page.elements if tag == "svg")
    assert drawing["role"] == "img"
    assert {one.get("id") for _, one in page.elements} >= set(
        (drawing["aria-labelledby"] or "").split()
    )


def test_thousand_files_stay_small(tmp_path: Path) -> None:
    files = [
        record(
            f"photos/street/{index:05d}_some_longer_name.jpg",
            output_bytes=12_000 + 7 * index,
            source_bytes=90_000 + index,
        )
        for index in range(1000)
    ]
    files[700] = failed("photos/street/bad.jpg")
    files[800] = record("photos/street/kept.jpg", status="kept")
    gallery = [
        GalleryItem(name=files[0].input, caption="", source=jpeg(), result=jpeg(), depth=jpeg())
    ]
    paths = write(tmp_path, files, gallery)
    page = page_of(paths)
    pictures = sum(len(one["src"] or "") for tag, one in page.elements if tag == "img")
    assert paths.html.stat().st_size - pictures < 115_000  # the template and 500 rows
    rows = page.file_rows()
    assert len(rows) == pages.MAX_TABLE_ROWS
    assert [row[0] for row in rows[:3]] == ["bad.jpg", "kept.jpg", "00999_some_longer_name.jpg"]
    assert "500 of 1,000 files are listed" in page.text
    assert len(read_csv(paths.csv)) == 1000
    histogram = [
        int(number) for number in re.findall(r"against optimised JPEG: (\d+) file", page.text)
    ]
    assert sum(histogram) == 999


def test_histogram_bins_by_their_lower_edge() -> None:
    # 0.30 / 0.05 is below 6 in floats; the last edge, 55%, belongs to the last bin
    savings = [0.30] * 150 + [0.52] * 60 + [0.55]
    files = [
        record(output_bytes=round(1000 * (1 - saving)), plain_jpeg_bytes=1000, source_bytes=0)
        for saving in savings
    ]
    text = report(files).html()
    bins = dict(re.findall(r"<title>(\d+)% to \d+% against optimised JPEG: (\d+) files", text))
    assert bins == {"30": "150", "50": "61"}


@pytest.mark.parametrize(
    ("size", "kind"),
    [
        ((48, 32), "item wide"),
        ((200, 40), "item pano"),
        ((30, 50), "item tall wide"),
        ((40, 40), "item tall wide"),
    ],
)
def test_gallery_takes_any_shape(size: tuple[int, int], kind: str) -> None:
    item = GalleryItem(
        name="a.jpg",
        caption="",
        source=jpeg(*size),
        result=jpeg(*size),
        depth=jpeg(*size, mode="L"),
    )
    page = Page(report([]).html([item]))
    assert next(one["class"] for tag, one in page.elements if tag == "article") == kind
    images = [one for tag, one in page.elements if tag == "img"]
    assert [(one["width"], one["height"]) for one in images] == [(str(size[0]), str(size[1]))] * 3
    assert all(one["alt"] for one in images)
    slider = next(one for tag, one in page.elements if tag == "input")
    assert slider["type"] == "range"
    assert slider["aria-label"]


def test_gallery_finds_the_record_of_a_photo() -> None:
    files = [
        record("x/a.jpg", psnr=30.0),
        record("x/b.jpg", psnr=31.0),
        record("y/b.jpg", psnr=32.0),
    ]

    def psnr(name: str) -> list[str]:
        item = GalleryItem(name=name, caption="", source=jpeg(), result=jpeg())
        article = re.search("<article.*</article>", report(files).html([item]), re.DOTALL)
        assert article is not None
        return re.findall(r"3\d\.00", Page(article[0]).text)

    assert psnr("y/b.jpg") == ["32.00"]
    assert psnr("a.jpg") == ["30.00"]
    assert psnr("b.jpg") == []  # two have that name: no figures rather than another photo's


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8", b"not a jpeg at all", b"\xff\xd8\xff\xe0\x00\x00" * 9, jpeg()[:100]]
)
def test_size_of_a_broken_jpeg_is_unknown(data: bytes) -> None:
    assert pages.dimensions(data) is None


def test_page_is_accessible(tmp_path: Path) -> None:
    gallery = [
        GalleryItem(name="photos/a.jpg", caption="", source=jpeg(), result=jpeg(), depth=jpeg())
    ] * 2
    page = page_of(write(tmp_path, [record()], gallery))
    assert page.count("h1") == 1
    assert page.count("main") == 1
    assert page.elements[0] == ("html", {"lang": "en"}) or page.elements[1] == (
        "html",
        {"lang": "en"},
    )
    identifiers = [one["id"] for _, one in page.elements if "id" in one]
    assert len(identifiers) == len(set(identifiers))
    for tag, one in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert set((one.get(name) or "").split()) <= set(identifiers), (tag, one)
        if tag == "th":
            assert one.get("scope") in ("row", "col")
    assert page.count("th")


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (9_995, "10.0 kB"),
        (26_791, "26.8 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_434_000, "1.43 MB"),
        (12 * 10**15, "12,000 TB"),
    ],
)
def test_bytes_have_three_digits(number: int, shown: str) -> None:
    assert pages.size(number).replace("\u202f", " ") == shown


@pytest.mark.parametrize(
    ("fraction", "shown"),
    [
        (0.4213, "42.1%"),
        (-0.0001, "0.0%"),
        (-0.032, "−3.2%"),
        (1.0, "100.0%"),
        (-12.5, "−1,250.0%"),
    ],
)
def test_percent(fraction: float, shown: str) -> None:
    assert pages.percent(fraction) == shown


def test_folder_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError):
        write(tmp_path / "file" / "below", [record()])


def test_the_json_fits_its_schema(tmp_path: Path) -> None:
    import jsonschema

    schema = json.loads(
        files("vizcomp").joinpath("bundled", "djpeg_report.schema.json").read_text("utf-8")
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    some = [
        record(
            verify_state="verified", verified=True, verify_score={"text": 1.0}, rival_bytes=20_000
        ),
        failed("photos/b.jpg"),
    ]
    near = {"psnr": 31.0, "uniform_psnr": 30.5, "rest_psnr": 29.0, "uniform_rest_psnr": 29.5}
    some[0] = dataclasses.replace(some[0], near=near)
    sums = dataclasses.replace(
        totals(some),
        rival=rival_totals([(20_000, 15_000), (9_000, 10_000)]),
        near=near_totals([near]),
    )
    system = {
        "name": "text",
        "fingerprint": "1",
        "kind": "boxes",
        "reading": "boxes",
        "versions": {"numpy": "2"},
        "roles": ["verify"],
    }
    report = DjpegReport(
        tool="t", version="1", settings={**SETTINGS, "systems": [system]}, totals=sums, files=some
    )
    written = json.loads("".join(report.json_chunks()))
    jsonschema.validate(written, schema)
    for wrong in (
        {**written, "totals": {}},
        {**written, "files": [{**written["files"][0], "status": "fine"}]},
    ):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)
    fields = schema["properties"]["files"]["items"]["properties"]
    assert list(fields) == [field.name for field in dataclasses.fields(FileRecord)]
    assert list(schema["properties"]["totals"]["properties"]) == [
        field.name for field in dataclasses.fields(Totals)
    ]


def test_under_a_verdict_the_headline_is_against_what_passes_it_too() -> None:
    some = [record(verify_state="verified", verified=True, rival_bytes=20_000)]
    sums = dataclasses.replace(totals(some), rival=rival_totals([(20_000, 15_000)] * 3))
    text = DjpegReport(tool="t", version="1", settings={}, totals=sums, files=some).html()
    assert "smaller than optimised plain JPEG on which your systems answer alike" in text
    assert "25.0%" in text
    assert "from 3 photos" in text
    assert rival_totals([]) is None
    worse = rival_totals([(10_000, 15_000)])
    assert worse is not None
    assert (worse["saving"], worse["interval"]) == (-0.5, [-0.5, -0.5])


@pytest.mark.parametrize(("size", "kind"), [(9_000, "key"), (11_000, "loss")])
def test_a_result_larger_than_plain_jpeg_is_no_gain(tmp_path: Path, size: int, kind: str) -> None:
    one = record(output_bytes=size, optimised_jpeg_bytes=10_000)
    paths = write(
        tmp_path, [one], [GalleryItem(name=one.input, caption="", source=jpeg(), result=jpeg())]
    )
    marks = {
        attrs["class"]
        for tag, attrs in page_of(paths).elements
        if tag == "div" and attrs.get("class") in ("key", "loss")
    }
    assert marks == {kind}


@pytest.mark.parametrize(
    ("kinds", "wide"),
    [
        *[("h", "0"), ("hh", "01"), ("hhh", "0"), ("hhhh", "03"), ("hhhhh", "0")],
        *[("hphh", "0"), ("hhp", "01"), ("hhhphp", "04"), ("phh", ""), ("ph", "1")],
    ],
)
def test_no_card_leaves_room_beside_it(kinds: str, wide: str) -> None:
    """Of ordinary photos and panoramas: which cards have a whole row."""
    sizes = {"h": (48, 32), "p": (200, 40)}
    items = [
        GalleryItem(
            name=f"{number}.jpg",
            caption="",
            source=jpeg(*sizes[kind]),
            result=jpeg(*sizes[kind]),
            depth=None,
        )
        for number, kind in enumerate(kinds)
    ]
    page = Page(report([]).html(items))
    classes = [one["class"] or "" for tag, one in page.elements if tag == "article"]
    assert "".join(str(n) for n, each in enumerate(classes) if "wide" in each) == wide
