"""The curves of a run."""

from __future__ import annotations

from typing import Any

_COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#b7791f", "#7b4fb5", "#4a5568", "#0e7c86", "#a03e99")


def curves_svg(records: list[dict[str, Any]]) -> str:
    """Each figure over the epochs, in its own range: an SVG document, 640 wide.

    Thin lines are training, thick ones validation. A run of several stages has a colour for each.
    """
    series: dict[str, dict[tuple[str, bool], list[tuple[float, float]]]] = {}
    stages: dict[str, int] = {}
    for record in records:
        stage, epoch = record.get("stage", ""), record["epoch"]
        stages.setdefault(stage, len(stages))
        training = {
            n: v for n, v in record.items() if n not in ("stage", "step", "epoch", "validation")
        }
        for checked, figures in ((False, training), (True, record["validation"])):
            for name, value in figures.items():
                series.setdefault(name, {}).setdefault((stage, checked), []).append((epoch, value))
    # a few steps of a long epoch round to none
    last = max((r["epoch"] for r in records), default=0.0) or 1.0
    height = 70 * len(series) + 30
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 {height}"'
            ' font-family="sans-serif" font-size="11">'
        ),
        f'<rect width="640" height="{height}" fill="white"/>',
    ]
    for row, (name, lines) in enumerate(sorted(series.items())):
        top, bottom = 70 * row + 20, 70 * row + 70
        values = [value for points in lines.values() for _, value in points]
        low, high = min(values), max(values)
        colour = _COLOURS[row % len(_COLOURS)] if len(stages) == 1 else "#222"
        parts.append(
            f'<text x="8" y="{top - 4}" fill="{colour}">{name}: {low:.4g} to {high:.4g}, last'
            f" {values[-1]:.4g}</text>"
        )
        parts.append(f'<line x1="8" x2="632" y1="{bottom}" y2="{bottom}" stroke="#ddd"/>')
        for (stage, checked), points in sorted(lines.items(), key=lambda line: line[0][1]):
            if len(stages) > 1:
                colour = _COLOURS[stages[stage] % len(_COLOURS)]
            heights = (
                (e, bottom - (bottom - top) * (v - low) / max(high - low, 1e-12)) for e, v in points
            )
            line = " ".join(f"{8 + 624 * e / last:.1f},{y:.1f}" for e, y in heights)
            style = f'fill="none" stroke="{colour}" stroke-width="{2 if checked else 1}"'
            parts.append(
                f'<polyline points="{line}" {style}><title>{stage or name}</title></polyline>'
            )
    parts.append(
        f'<text x="8" y="{height - 6}">0 to {last:g} epochs; thick: on the validation'
        " part</text></svg>"
    )
    return "\n".join(parts) + "\n"
