"""Ceilings of memory and time of the whole command. Slow, and the times mean something only on an
idle machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vizcomp.weights import table

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": str(ROOT / "src"),
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}

# A small process of its own: Linux counts the memory of the process that started a command as the
# command's.
_PEAK = """
import resource, subprocess, sys
done = subprocess.run(sys.argv[1:], stdout=sys.stderr)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1024, done.returncode)
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not sys.platform.startswith("linux"), reason="ru_maxrss has another unit elsewhere"
    ),
]


def _guide() -> str:
    return "depth+detail" if table.bundled_path("compact_depth.onnx").is_file() else "detail"


@pytest.mark.parametrize(
    ("name", "options"),
    [("a.jpg", {"subsampling": 2}), ("b.jpg", {"subsampling": 0}), ("c.png", {})],
)
def test_memory_at_24_megapixels(
    tmp_path: Path, coffee: np.ndarray, name: str, options: dict[str, int]
) -> None:
    large = np.asarray(Image.fromarray(coffee).resize((6000, 4000), Image.Resampling.BICUBIC))
    grain = np.random.default_rng(0).integers(-4, 5, large.shape[:2], dtype=np.int16)
    large = np.clip(large + grain[:, :, None], 0, 255).astype(np.uint8)
    Image.fromarray(large).save(tmp_path / name, quality=92, compress_level=1, **options)
    command = [
        sys.executable,
        "-m",
        "vizcomp",
        "djpeg",
        str(tmp_path / name),
        "-o",
        str(tmp_path / "out"),
        "-j",
        "1",
        "--quiet",
    ]
    done = subprocess.run(
        [sys.executable, "-S", "-c", _PEAK, *command, "--guide", _guide()],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    peak, code = map(int, done.stdout.split())
    assert code == 0, done.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert peak < 400


def test_cold_start(tmp_path: Path, coffee: np.ndarray) -> None:
    Image.fromarray(coffee).save(tmp_path / "one.jpg", quality=92)
    one = [
        "djpeg",
        str(tmp_path / "one.jpg"),
        "-o",
        str(tmp_path / "out"),
        "--overwrite",
        "--quiet",
        "--guide",
        _guide(),
    ]
    assert _seconds(one) < 1.5
    assert _seconds(["--help"]) < 0.4


def _seconds(arguments: list[str]) -> float:
    """The best of five runs in new processes."""
    best = float("inf")
    for _ in range(5):
        started = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "vizcomp", *arguments],
            env=ENVIRONMENT,
            check=True,
            capture_output=True,
        )
        best = min(best, time.perf_counter() - started)
    return best
