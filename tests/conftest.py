"""Fixtures. The photos are scikit-image's own, under CC0 or in the public domain."""

from __future__ import annotations

import os
import re
import signal
import tempfile
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from kit import jpeg_bytes, tiny_codec
from PIL import Image

# a test run in a script's background is born with it ignored
signal.signal(signal.SIGINT, signal.default_int_handler)

# the same examples each time, and none too slow: a run says something of the code alone
hypothesis.settings.register_profile(
    "vizcomp",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("vizcomp")

_own_cache: list[tempfile.TemporaryDirectory[str]] = []


# Two workers with a pool of threads each would fight for the cores; worker processes take these
# over.
THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def pytest_configure(config: pytest.Config) -> None:
    """Journals and downloads of the tests do not go into the user's cache; before any test module
    copies the environment."""
    _own_cache.append(tempfile.TemporaryDirectory(prefix="vizcomp-tests-"))
    os.environ["VIZCOMP_CACHE"] = _own_cache[-1].name
    if getattr(config.option, "numprocesses", None):
        for name in THREADS:
            os.environ.setdefault(name, "1")


def pytest_unconfigure() -> None:
    os.environ.pop("VIZCOMP_CACHE", None)
    while _own_cache:
        _own_cache.pop().cleanup()


@pytest.fixture(scope="session", autouse=True)
def _no_progress() -> None:
    """How far a run is, is said every ten seconds: of tests of what commands say, that would make
    one of how busy the machine is."""
    from vizcomp.cli import progress

    progress.LINE_SECONDS = 1e6


@pytest.fixture(scope="session")
def any_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec for images of any size."""
    return tiny_codec(tmp_path_factory.mktemp("models") / "any.safetensors")


@pytest.fixture(scope="session")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A codec for images of 32x32."""
    return tiny_codec(tmp_path_factory.mktemp("models") / "small.safetensors", seed=1, native=32)


@pytest.fixture(scope="session")
def coffee() -> np.ndarray:
    """uint8 (400, 600, 3): a table with a cup, in focus in front and dark behind."""
    from skimage import data

    return np.asarray(data.coffee())


@pytest.fixture(scope="session")
def cat() -> np.ndarray:
    """uint8 (300, 451, 3): sides that are no multiples of 8."""
    from skimage import data

    return np.asarray(data.chelsea())


@pytest.fixture
def folder(tmp_path: Path, coffee: np.ndarray, cat: np.ndarray) -> Path:
    """A small tree of photos: a/coffee.jpg, cat.png, cat.jpg, grey.jpg."""
    photos = tmp_path / "photos"
    (photos / "a").mkdir(parents=True)
    (photos / "a" / "coffee.jpg").write_bytes(jpeg_bytes(coffee, subsampling="4:4:4"))
    Image.fromarray(cat).save(photos / "cat.png")
    (photos / "cat.jpg").write_bytes(jpeg_bytes(cat))
    (photos / "grey.jpg").write_bytes(jpeg_bytes(cat[..., 1]))
    return photos


# Where CI is set a test may be skipped for these reasons only: everything else is installed there.
MAY_BE_SKIPPED = re.compile(
    "needs the shared data|the street photos are not here|no Chromium here"  # of the machine
    r"|no models here|the models are not here|no \.\./shared here|needs \.\./shared/models"
    "|root may write anywhere|root writes everywhere|nothing is unreadable for this user|a small"
    " disk cannot be mounted here"
    # other programs
    "|.+ is not installed|needs jpegtran to make one|this jpegtran has no arithmetic coding"
    "|the library refuses it"  # libjpeg of another version
    # extras that dev is without
    "|could not import '(pillow_heif|pillow_jxl|rapidocr)'.*|this pillow-heif cannot write: .*"
)
_skipped: dict[str, str] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    _note_skip(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    _note_skip(report)


def _note_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if report.skipped and not hasattr(report, "wasxfail") and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not MAY_BE_SKIPPED.fullmatch(reason):
            _skipped[report.nodeid] = reason


def pytest_sessionfinish(session: pytest.Session) -> None:
    if (
        os.environ.get("CI")
        and _skipped
        and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED)
    ):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if os.environ.get("CI"):
        for test, reason in _skipped.items():
            terminalreporter.write_line(
                f"FAILED {test} - skipped for a reason that MAY_BE_SKIPPED does not list: {reason}"
            )
