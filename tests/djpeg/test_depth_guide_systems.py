"""`--guide depth` at its default strength costs no system its answers at equal bytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHARED = Path(os.environ.get("VIZCOMP_SHARED", ROOT.parent / "shared"))
SYSTEMS = ("efficientnet", "mobilenet", "yolox")
PHOTOS = 8
NOISE = 0.05
"""What the smooth score of a system errs by on so few photos."""


@pytest.mark.slow
@pytest.mark.skipif(not (SHARED / "models").is_dir(), reason="needs ../shared")
def test_the_default_depth_guide_costs_no_system_its_answers(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert")
    rows = tmp_path / "rows.json"
    options = [
        "--quality",
        "50",
        "--ladder",
        "33",
        "--ladder",
        "50",
        "--ladder",
        "70",
        "--limit",
        str(PHOTOS),
    ]
    options += [part for name in SYSTEMS for part in ("--system", name)]
    options += [part for name in ("coco", "bsds", "imagenet") for part in ("--set", name)]
    command = [
        sys.executable,
        str(ROOT / "benchmarks" / "djpeg_systems.py"),
        *options,
        "--codec",
        "guide=depth",
    ]
    done = subprocess.run(
        [*command, "--json", str(rows), "--scores", str(tmp_path / "scores.sqlite")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        from djpeg_systems import compare
    finally:
        sys.path.remove(str(ROOT / "benchmarks"))
    found: list[dict[str, Any]] = [
        f
        for f in compare([json.loads(line) for line in rows.read_text().splitlines()])
        if f["quality"] == "mean"
    ]
    assert {f["system"] for f in found} == set(SYSTEMS)
    for figure in found:
        assert figure["photos"] >= PHOTOS
        assert figure["close"] > -NOISE, figure
