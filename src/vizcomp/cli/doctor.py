"""`vizcomp doctor`."""

from __future__ import annotations

from typing import Any

import typer

from vizcomp.cli.options import Json


def doctor(json: Json = False) -> None:
    """Say what this installation can do: versions, formats, decoders and how their pixels differ,
    cores, cache, extras, GPU.

    Leaves with 1 where something that should work will not.
    """
    from vizcomp.batch.health import examine
    from vizcomp.report.tables import report_json

    health = examine()
    if json:
        print(report_json({"tool": "vizcomp doctor", **health}), end="")
    else:
        for name, value in _rows(health):
            print(f"{name:<12}{value}")
    raise typer.Exit(1 if health["problems"] else 0)


def _rows(health: dict[str, Any]) -> list[tuple[str, str]]:
    from vizcomp.cli.progress import human_bytes

    packages = ", ".join(
        f"{name} {version}" for name, version in health["packages"].items() if version
    )
    rows = [
        ("vizcomp", f"{health['version']}, Python {health['python']}, {health['system']}"),
        ("packages", packages),
        ("reads", ", ".join(name for name, there in health["formats"].items() if there)),
    ]
    if missing := [name for name, there in health["formats"].items() if not there]:
        rows.append(("reads not", ", ".join(missing)))
    rows += [("decoder", _decoder(row)) for row in health["decoders"]]
    memory = f", {human_bytes(health['memory_bytes'])} of memory" if health["memory_bytes"] else ""
    rows.append(("cores", f"{health['cores']}{memory}"))
    cache = health["cache"]
    state = (
        f"{human_bytes(cache['bytes'])}, {cache['journals']} journals"
        if cache["writable"]
        else "cannot be written"
    )
    rows.append(("cache", f"{cache['path']}: {state}"))
    rows.append(
        ("networks", ", ".join(f"{name}: {state}" for name, state in health["bundled"].items()))
    )
    for title, there in (("extras", True), ("not there", False)):
        names = [name for name, is_there in health["extras"].items() if is_there == there]
        if names:
            hint = "" if there else f"; pip install 'vizcomp[{names[0]}]'"
            rows.append((title, ", ".join(names) + hint))
    gpu = health["gpu"]
    gpus = [
        gpu["driver"] or "no driver",
        *gpu["onnxruntime"],
        *([f"torch: {gpu['torch']}"] if gpu["torch"] else []),
    ]
    rows.append(("gpu", ", ".join(gpus)))
    return [*rows, *(("problem", problem) for problem in health["problems"])]


def _decoder(row: dict[str, Any]) -> str:
    if not row["installed"]:
        return f"{row['name']}: not installed"
    if "error" in row:
        return f"{row['name']}: {row['error']}"
    name = f"{row['name']} {row['version'] or ''}".strip() + (
        f" ({row['library']})" if "library" in row else ""
    )
    if row["name"] == "pillow":
        return f"{name}: what djpeg measures by"
    if not row["largest"]:
        return f"{name}: the same pixels as Pillow"
    apart = f"by {row['mean']:.2f} on average, {row['largest']} at most"
    return f"{name}: {row['differ']:.1%} of the samples differ from Pillow's, {apart}"
