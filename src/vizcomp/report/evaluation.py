"""The report of `vizcomp eval`: JSON, CSV and one HTML file. Formats figures, computes none.

The page is of the same family as that of `djpeg`: it takes style and script from the same template, and `report`'s helpers stand
between strings, which may all be hostile, and the page.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vizcomp.report.djpeg import (
    _NONE,
    ReportPaths,
    _bytes,
    _csv_cell,
    _make_folder,
    _plain,
    _settings,
    _text,
    report_json,
)
from vizcomp.results import EvalExample, EvalPoint, EvalResult
from vizcomp.storage import AnyPath

MAX_EXAMPLES = 24
"""Images of the gallery, at most."""

MAX_PICTURE_BYTES = 2_000_000
"""Bytes of the gallery's pictures in the page, at most: the whole stays under 3 MB."""

MAX_TABLE_ROWS = 500

_BY_SYSTEM = ("accuracy", "agreement", "top5", "recall", "precision", "interval")
_SINGLE = (
    "codec",
    "setting",
    "ours",
    "images",
    "failed",
    "bytes_per_image",
    "payload_bytes_per_image",
    "bpp",
    "psnr",
    "ms_ssim",
    "encode_seconds",
    "decode_seconds",
)


def write_eval_report(
    folder: AnyPath, *, tool: str, version: str, settings: Mapping[str, Any], result: EvalResult, command: str
) -> ReportPaths:
    """Write report.json, report.csv and report.html into a folder, each beside its place and then renamed.

    Args:
        folder: where to; made if it is not there.
        tool, version: who wrote it, as shown.
        settings: of the run: JSON types, or what turns into them.
        command: the command line that repeats the run.

    Raises:
        OutputError: the folder cannot be made, or a file cannot be written.
    """
    from vizcomp.images import write_atomic

    found = eval_report_dict(tool=tool, version=version, settings=settings, result=result, command=command)
    page = eval_report_html(tool=tool, version=version, settings=settings, result=result, command=command)
    paths = ReportPaths(html=folder / "report.html", json=folder / "report.json", csv=folder / "report.csv")
    _make_folder(folder)
    write_atomic(paths.json, report_json(found).encode("ascii"))
    write_atomic(paths.csv, eval_report_csv(result).encode("utf-8"))
    write_atomic(paths.html, page.encode("utf-8"))
    return paths


def eval_report_dict(
    *, tool: str, version: str, settings: Mapping[str, Any], result: EvalResult, command: str = ""
) -> dict[str, Any]:
    """The report as JSON types, without the gallery; its schema is `bundled/eval_report.schema.json`.

    Figures that JSON cannot hold (NaN, infinity) become None.
    """
    report = {
        "tool": tool,
        "version": version,
        "command": command,
        "interrupted": result.interrupted,
        "headline": result.headline,
        "warnings": list(result.warnings),
        "settings": dict(settings),
        "data": result.data,
        "classifiers": result.classifiers,
        "source_accuracy": result.source_accuracy,
        "points": [point.to_dict() for point in result.points],
        "bd_rate": result.bd_rate,
        "equal_accuracy": result.equal,
        "reference_points": result.reference_points,
        "codecs": result.codecs,
        "versions": result.versions,
    }
    return {key: _plain(value) for key, value in report.items()}


def eval_report_csv(result: EvalResult) -> str:
    """One row for each point (RFC 4180); what there is for each system has a column for each, as `accuracy:inception`."""
    names = [str(c["name"]) for c in result.classifiers]
    columns = [*_SINGLE, *(f"{kind}:{name}" for name in names for kind in _BY_SYSTEM if kind != "interval")]
    columns += [f"interval_{end}:{name}" for name in names for end in ("low", "high")]
    rows = [",".join(_csv_cell(column) for column in columns)]
    for point in result.points:
        values = _plain(point.to_dict())
        cells = [values[name] for name in _SINGLE]
        cells += [values[kind].get(name) for name in names for kind in _BY_SYSTEM if kind != "interval"]
        for name in names:
            cells += values["interval"].get(name) or [None, None]
        rows.append(",".join("" if c is None else _csv_cell(c) if isinstance(c, str) else repr(c) for c in cells))
    return "\r\n".join(rows) + "\r\n"


# --- the page -------------------------------------------------------------------------------------------------------


def eval_report_html(*, tool: str, version: str, settings: Mapping[str, Any], result: EvalResult, command: str) -> str:
    """The page as text: one file with its style, script, charts and pictures inside, that loads nothing."""
    from importlib.resources import files as package_files

    bundled = package_files("vizcomp").joinpath("bundled")
    family = bundled.joinpath("report.html.j2").read_text("utf-8")
    style = family[family.index("<style>") + 7 : family.index("</style>")]
    script = family[family.rindex("<script>") + 8 : family.rindex("</script>")]
    template = bundled.joinpath("evaluation.html.j2").read_text("utf-8")
    parts = {
        "style": style,
        "script": script,
        "title": _text(f"{tool} report"),
        "tool": _text(tool),
        "version": _text(version),
        "banners": _banners(result),
        "headline": _headline(result),
        "facts": _facts(result),
        "charts": _charts(result),
        "equal": _equal(result),
        "points": _points(result),
        "bd": _bd_rates(result),
        "gallery": _gallery(result),
        "command": _text(command),
        "settings": _settings(settings),
        "made": _made_with(result),
    }
    # One pass: text that looks like a placeholder, in a file name say, is never replaced.
    return re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], template)


def _banners(result: EvalResult) -> str:
    banners = []
    if result.interrupted:
        banners.append(
            '<div class="banner warn" role="status"><strong>Interrupted.</strong> The run was stopped before its end: these are '
            "the codecs that were finished.</div>"
        )
    banners += [f'<div class="banner warn" role="status">{_text(warning)}</div>' for warning in result.warnings]
    return "\n".join(banners)


def _headline(result: EvalResult) -> str:
    """The first clause large, the rest below it."""
    first, colon, rest = result.headline.partition(": ")
    if not colon:
        return f'<h1 class="says-all">{_text(result.headline)}</h1>'
    return f'<h1 class="says-all">{_text(first)}</h1>\n<p class="rest">{_text(rest[:1].upper() + rest[1:])}</p>'


def _share(value: float | None) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{100 * value:.1f}%"


def _number(value: float | None, digits: int) -> str:
    return _NONE if value is None or not math.isfinite(value) else f"{value:,.{digits}f}"


def _facts(result: EvalResult) -> str:
    data = result.data
    size = f"{data['width']}×{data['height']}" if data.get("width") else "of several sizes"
    cells = [("Images", f"{data['images']:,}", f"{_text(data['name'])}, {size}")]
    for system in result.classifiers:
        known = "unseen by every codec" if system["unseen"] else "a codec may know it"
        value = result.source_accuracy.get(system["name"])
        shown = _share(value) if value is not None else "agreement"
        note = f"on the sources; {known}" if value is not None else f"with its own answer on the source; {known}"
        cells.append((_text(system["name"]), shown, note))
    rows = "\n".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in cells)
    return f'<dl class="stats">\n{rows}\n</dl>'


# Charts

_MARKERS = (  # drawn around 0, 0
    '<circle r="4.5"/>',
    '<rect x="-4" y="-4" width="8" height="8"/>',
    '<path d="M0-5.5L5 4H-5Z"/>',
    '<path d="M0-5.5L5.5 0 0 5.5-5.5 0Z"/>',
    '<path d="M0 5.5L5-4H-5Z"/>',
    '<path d="M-5-1.5H-1.5V-5H1.5V-1.5H5V1.5H1.5V5H-1.5V1.5H-5Z"/>',
    '<path d="M-4.5-4.5L4.5 4.5M-4.5 4.5L4.5-4.5" class="open"/>',
    '<circle r="4" class="open"/>',
)
_DASHES = ("", "7 3", "2 3", "10 3 2 3", "4 4", "12 4", "1 4", "6 2 1 2")

_WIDTH, _HEIGHT = 560, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 14, 16, 46


def _series(result: EvalResult) -> dict[str, list[EvalPoint]]:
    found: dict[str, list[EvalPoint]] = {}
    for point in result.points:
        found.setdefault(point.codec, []).append(point)
    return found


def _psnr(point: EvalPoint) -> float | None:
    return point.psnr


def _ms_ssim(point: EvalPoint) -> float | None:
    return point.ms_ssim


def _charts(result: EvalResult) -> str:
    series = _series(result)
    if not series:
        return ""
    charts = []
    for system in result.classifiers:
        name = str(system["name"])
        known = result.source_accuracy.get(name) is not None
        kind = "Accuracy" if known else "F1 against its own boxes" if system["kind"] == "boxes" else "Agreement"
        whole = result.source_accuracy.get(name) if known else 1.0
        points = [r for r in result.reference_points if r["measure"] == f"{'accuracy' if known else 'agreement'}:{name}"]

        def value(point: EvalPoint, name: str = name, known: bool = known) -> float | None:
            return (point.accuracy if known else point.agreement).get(name)

        note = "unseen by the codecs" if system["unseen"] else "a codec may know it"
        charts.append(_chart(f"{kind} of {name}", note, series, value, name, whole, points, percent=True))
    for title, unit, get in (
        ("PSNR", "dB, mean over images", _psnr),
        ("MS-SSIM", "mean over images", _ms_ssim),
    ):
        if any(get(p) is not None for p in result.points):
            charts.append(_chart(title, unit, series, get, "", None, [], percent=False))
    legend = "".join(
        f'<li><svg width="44" height="16" aria-hidden="true" class="k{i % 8}"><g transform="translate(22 8)">'
        f'<path d="M-20 0H20" class="curve" stroke-dasharray="{_DASHES[i % 8]}"/>{_MARKERS[i % 8]}</g></svg>{_text(codec)}</li>'
        for i, codec in enumerate(series)
    )
    return (
        '<section aria-labelledby="curves">\n<h2 id="curves">Rate against accuracy</h2>\n'
        '<p class="lede">Bytes of whole files, on a scale of ratios; up and to the left is better. Bars are 95% intervals. '
        f'Point at a mark for its figures.</p>\n<ul class="keys">{legend}</ul>\n<div class="charts">\n'
        + "\n".join(charts)
        + "\n</div>\n</section>"
    )


def _log_ticks(low: float, high: float) -> list[float]:
    ticks = [m * 10.0**e for e in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1) for m in (1, 2, 5)]
    inside = [t for t in ticks if low * 0.999 <= t <= high * 1.001]
    return inside if len(inside) <= 9 else [t for t in inside if f"{t:e}"[0] == "1"]


def _line_ticks(low: float, high: float) -> list[float]:
    span = max(high - low, 1e-9)
    step = next((m * 10.0**e for e in range(-6, 7) for m in (1, 2, 5) if span / (m * 10.0**e) <= 6), span)
    return [i * step for i in range(math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9) + 1)]


def _chart(
    title: str,
    note: str,
    series: Mapping[str, Sequence[EvalPoint]],
    value: Any,
    system: str,
    whole: float | None,
    references: Sequence[Mapping[str, Any]],
    *,
    percent: bool,
) -> str:
    """One chart; `system` names whose intervals are drawn, `whole` is the level of the sources."""
    drawn = {codec: [(p, v) for p in some if (v := value(p)) is not None and math.isfinite(v)] for codec, some in series.items()}
    sizes = [p.bytes_per_image for some in drawn.values() for p, _ in some] + [r["bytes"] for r in references]
    values = [v for some in drawn.values() for _, v in some] + [r["value"] for r in references]
    if whole is not None:
        values.append(whole)
    if not sizes:
        return ""
    low_x, high_x = min(sizes) / 1.15, max(sizes) * 1.15
    ticks = _line_ticks(min(values), max(values))
    low_y, high_y = ticks[0], max(ticks[-1], ticks[0] + 1e-9)

    def x(size: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * math.log(size / low_x) / math.log(high_x / low_x)

    def y(level: float) -> float:
        return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - (level - low_y) / (high_y - low_y))

    def shown(level: float) -> str:
        return _share(level) if percent else f"{level:.4f}" if high_y <= 1.5 else f"{level:.2f}"

    body = []
    for tick in ticks:
        label = f"{100 * tick:.0f}%" if percent else f"{tick:.3g}"
        body.append(
            f'<line class="g" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y(tick) + 5:.1f}" text-anchor="end">{label}</text>'
        )
    for tick in _log_ticks(low_x, high_x):
        body.append(
            f'<line class="g" x1="{x(tick):.1f}" x2="{x(tick):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}"/>'
            f'<text x="{x(tick):.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{_bytes(round(tick))}</text>'
        )
    if whole is not None and low_y <= whole <= high_y:
        body.append(
            f'<line class="whole" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y(whole):.1f}" y2="{y(whole):.1f}"/>'
            f'<text x="{_LEFT + 6}" y="{y(whole) - 6:.1f}">sources {shown(whole)}</text>'
        )
    for at, (codec, some) in enumerate(drawn.items()):
        marks = []
        path = " ".join(f"{'L' if i else 'M'}{x(p.bytes_per_image):.1f} {y(v):.1f}" for i, (p, v) in enumerate(some))
        for point, v in some:
            interval = point.interval.get(system) if system else None
            words = f"{codec}, {point.setting}: {point.bytes_per_image:,.1f} bytes, {shown(v)}"
            bar = ""
            if interval is not None:
                words += f" ({shown(interval[0])} to {shown(interval[1])})"
                high, low = (min(max(y(end), _TOP), _HEIGHT - _BOTTOM) for end in (interval[1], interval[0]))
                bar = f'<path class="bar" d="M0 {high - y(v):.1f}V{low - y(v):.1f}"/>'
            marks.append(
                f'<g transform="translate({x(point.bytes_per_image):.1f} {y(v):.1f})"><title>{_text(words)}</title>{bar}'
                f'<circle r="11" class="hit"/>{_MARKERS[at % 8]}</g>'
            )
        line = f'<path class="curve" d="{path}" stroke-dasharray="{_DASHES[at % 8]}"/>' if len(some) > 1 else ""
        body.append(f'<g class="k{at % 8}">{line}{"".join(marks)}</g>')
    for reference in references:
        words = f"{reference['name']}: {reference['bytes']:,.0f} bytes, {shown(reference['value'])} ({reference['source']})"
        place = x(reference["bytes"])
        end = place > _WIDTH * 0.6
        body.append(
            f'<g class="ref" transform="translate({place:.1f} {y(reference["value"]):.1f})"><title>{_text(words)}</title>'
            f'<path d="M0-7L7 0 0 7-7 0Z"/><text x="{-11 if end else 11}" y="5"{" text-anchor=end" if end else ""}>'
            f"{_text(reference['name'])}</text></g>"
        )
    body.append(f'<text x="{(_LEFT + _WIDTH) / 2:.0f}" y="{_HEIGHT - 6}" text-anchor="middle">bytes for each image</text>')
    best = "; ".join(
        f"{codec} {shown(min(v for _, v in some))} to {shown(max(v for _, v in some))}" for codec, some in drawn.items() if some
    )
    words = _text(f"{title} over bytes for each image. {best}.")
    return (
        f'<figure class="plot chart"><h3>{_text(title)} <small>{_text(note)}</small></h3>'
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">' + "".join(body) + "</svg></figure>"
    )


# Tables


def _table(
    identity: str, title: str, lede: str, head: Sequence[str], rows: Sequence[Sequence[str]], *, sortable: bool = False
) -> str:
    if not rows:
        return ""
    cells = "".join(f'<th scope="col">{h}</th>' for h in head)
    body = "\n".join(f'<tr><th scope="row">{r[0]}</th>' + "".join(f"<td>{c}</td>" for c in r[1:]) + "</tr>" for r in rows)
    kind = "files" if sortable else "plain-table"
    return (
        f'<section class="{kind}" aria-labelledby="{identity}">\n<h2 id="{identity}">{title}</h2>\n<p class="lede">{lede}</p>\n'
        f'<div class="scroll" role="region" aria-labelledby="{identity}" tabindex="0"><table>\n<thead><tr>{cells}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>\n</section>"
    )


def _points(result: EvalResult) -> str:
    names = [str(c["name"]) for c in result.classifiers]
    head = ["Codec", "Setting", "Bytes", "Bits a pixel"]
    for name in names:
        if result.source_accuracy.get(name) is not None:
            head.append(f"{_text(name)}, right")
        head.append(f"{_text(name)}, as before")
    head += ["PSNR, dB", "MS\u2011SSIM", "Encode, ms", "Decode, ms"]
    rows = []
    for point in result.points[:MAX_TABLE_ROWS]:
        cells = [_text(point.codec), _text(point.setting), _number(point.bytes_per_image, 1), _number(point.bpp, 3)]
        for name in names:
            interval = point.interval.get(name)
            span = "" if interval is None else f" <small>{100 * interval[0]:.1f} to {100 * interval[1]:.1f}</small>"
            if result.source_accuracy.get(name) is not None:
                cells += [_share(point.accuracy.get(name)) + span, _share(point.agreement.get(name))]
            else:
                cells.append(_share(point.agreement.get(name)) + span)
        cells += [
            _number(point.psnr, 2),
            _number(point.ms_ssim, 4),
            _number(1000 * point.encode_seconds, 1),
            _number(1000 * point.decode_seconds, 1),
        ]
        rows.append(cells)
    lede = (
        "Bytes are of files as they are on disk. <i>Right</i>: the label is named. <i>As before</i>: the answer is that on the "
        "source (boxes: F1). Times are milliseconds for one image on one thread."
    )
    return _table("points", "All points", lede, head, rows, sortable=True)


def _measure(measure: str) -> str:
    kind, _, name = measure.partition(":")
    return _text({"psnr": "PSNR", "ms_ssim": "MS-SSIM"}.get(kind, f"{kind} of {name}"))


def _equal(result: EvalResult) -> str:
    """A row for each measure and level, a column for each codec."""
    sizes: dict[tuple[str, float], dict[str, float | None]] = {}
    for row in result.equal:
        one = sizes.setdefault((row["measure"], row["level"]), {})
        one[row["codec"]], one[row["anchor"]] = row["bytes"], row["anchor_bytes"]
    series = [codec for codec in _series(result) if any(codec in one for one in sizes.values())]
    rows = []
    for (measure, level), one in sizes.items():
        least = min((size for size in one.values() if size is not None), default=None)
        cells = []
        for codec in series:
            size = one.get(codec)
            text = _NONE if size is None else f"{size:,.1f}"
            cells.append(f"<b>{text}</b>" if size is not None and size == least else text)
        rows.append([_measure(measure), _share(level), *cells])
    lede = (
        "Bytes that an image takes at a level, linear in the logarithm of bytes between neighbouring points; "
        f"{_NONE} where a codec does not reach it. The fewest are bold."
    )
    return _table("equal", "Bytes at equal accuracy", lede, ["Measure", "Level", *(_text(c) for c in series)], rows)


def _bd_rates(result: EvalResult) -> str:
    rows = []
    for row in result.bd_rate:
        found, overlap = row["bd_rate"], row["overlap"]
        words = _text(row["why"]) if found is None else f"{'+' if found > 0 else '−' if found < 0 else ''}{100 * abs(found):.1f}%"
        span = _NONE if overlap is None else f"{overlap[0]:.4g} to {overlap[1]:.4g}"
        rows.append([_text(row["codec"]), _text(row["anchor"]), _measure(row["measure"]), words, span])
    lede = "Bytes at equal quality, averaged over the range that both curves reach; negative is fewer (Bjøntegaard 2001)."
    return _table(
        "bd", "Average difference in bytes (BD-rate)", lede, ["Codec", "Against", "Measure", "BD-rate", "Overlap"], rows
    )


def _made_with(result: EvalResult) -> str:
    rows = [(f"codec {c['name']}", f"{c['version']} {c['fingerprint']}".strip()) for c in result.codecs]
    rows += [(f"system {c['name']}", str(c["fingerprint"])) for c in result.classifiers]
    rows += [(name, version) for name, version in result.versions.items()]
    return "\n".join(f'<tr><th scope="row">{_text(name)}</th><td>{_text(value)}</td></tr>' for name, value in rows)


# Gallery


def _gallery(result: EvalResult) -> str:
    items: list[str] = []
    room = MAX_PICTURE_BYTES
    for index, example in enumerate(result.gallery[:MAX_EXAMPLES]):
        room -= 4 * (len(example.source) + len(example.result)) // 3
        if room < 0:
            break
        items.append(_example(example, index))
    if not items:
        return ""
    first = result.gallery[0]
    said = f"{_text(first.codec)}, {_text(first.setting)}: the images on which the systems suffered most, worst first"
    return (
        '<section aria-labelledby="images">\n<h2 id="images">Images</h2>\n'
        f'<p class="lede">{said}. Drag across an image, or use the arrow keys, to '
        "compare the source on the left with the result on the right.</p>\n"
        '<div class="gallery">\n' + "\n".join(items) + "\n</div>\n</section>"
    )


def _example(example: EvalExample, index: int) -> str:
    rows = "".join(
        f'<tr><th scope="row">{_text(name)}</th><td>{_text(before)}</td><td>{_text(after)}</td>'
        f'<td class="{"same" if same else "other"}">{"✓ same" if same else "✗ different"}</td></tr>'
        for name, (before, after, same) in example.answers.items()
    )
    size = _picture_size(example.source)
    small = " small" if size is not None and size[0] < 200 else ""
    ratio = size[0] / size[1] if size else 1.5
    sizes = f"{_bytes(example.result_bytes)}" + (f" of {_bytes(example.source_bytes)}" if example.source_bytes else "")
    label = _text(f"{example.name}: how much of the source is shown")
    layers = "".join(
        f'<div class="layer">{_image(data, _text(f"{example.name}, {tag.lower()}"))}{_polygons(example, side)}'
        f'<span class="tag">{tag}</span></div>'
        for side, (tag, data) in enumerate((("Source", example.source), ("Result", example.result)))
    )
    return (
        f'<article class="item{small}" aria-labelledby="image-{index}">\n'
        f'<div class="stage"><div class="compare" style="--ratio:{ratio:.4f}">'
        f"{layers}"
        f'<input type="range" min="0" max="100" value="50" aria-label="{label}">'
        '<span class="handle" aria-hidden="true"></span></div></div>\n'
        f'<div class="about"><h3 id="image-{index}">{_text(example.name)}</h3><p class="says">{sizes}</p>'
        '<table class="answers"><thead><tr><th scope="col">System</th><th scope="col">Source</th><th scope="col">Result</th>'
        f'<th scope="col">Verdict</th></tr></thead><tbody>{rows}</tbody></table></div>\n</article>'
    )


def _polygons(example: EvalExample, side: int) -> str:
    quads = [quad for pair in example.boxes.values() for quad in pair[side]]
    if not quads:
        return ""
    drawn = "".join(
        f'<polygon points="{" ".join(f"{100 * px:.2f},{100 * py:.2f}" for px, py in quad)}" vector-effect="non-scaling-stroke"/>'
        for quad in quads
    )
    return f'<svg class="boxes" viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'


def _image(data: bytes, alt: str) -> str:
    kind = "png" if data[:4] == b"\x89PNG" else "jpeg"
    size = _picture_size(data)
    place = f' width="{size[0]}" height="{size[1]}"' if size else ""
    return f'<img src="data:image/{kind};base64,{base64.b64encode(data).decode("ascii")}" alt="{alt}"{place}>'


def _picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height from the header of a PNG or a JPEG; None where there is none."""
    from vizcomp.report.djpeg import _jpeg_size

    if data[:4] == b"\x89PNG" and len(data) >= 24:
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    return _jpeg_size(data)
