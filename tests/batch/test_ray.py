"""The engine `ray`, on real Ray clusters of this machine."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray_tasks
from kit import PATIENCE, contents, wait_until
from PIL import Image
from typer.testing import CliRunner

from vizcomp.batch import ray_engine
from vizcomp.batch.djpeg import run_djpeg
from vizcomp.batch.encode import run_encode
from vizcomp.batch.engines import check_engine, map_tasks
from vizcomp.batch.loop import RunOptions
from vizcomp.batch.ray_engine import AHEAD, MAX_BATCH
from vizcomp.batch.settings import BatchSettings, EncodeSettings
from vizcomp.cli import app
from vizcomp.djpeg.settings import DjpegSettings
from vizcomp.errors import EngineError, MissingExtraError, SettingsError
from vizcomp.evaluation.results import EvalSettings
from vizcomp.evaluation.run import run_eval
from vizcomp.files.find import find_inputs
from vizcomp.files.store import StorePath, _system


def test_a_missing_extra_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtraError) as error:
        list(map_tasks(ray_tasks.square, [1], on_crash=abs, engine="ray"))
    assert error.value.hint == "pip install 'vizcomp[ray]'"


def test_an_address_without_ray() -> None:
    with pytest.raises(SettingsError, match="`engine` ray"):
        check_engine("local", "1.2.3.4:6379")
    found = CliRunner().invoke(app, ["djpeg", "x", "-o", "y", "--ray-address", "h:1"])
    assert isinstance(found.exception, SettingsError)


def start(nodes: int, **more: Any) -> Any:
    """A cluster of nodes of one core; what they are told is small and goes nowhere."""
    from ray.cluster_utils import Cluster

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    here = str(Path(__file__).parents[1])  # for the functions of `ray_tasks`
    if here not in os.environ.get("PYTHONPATH", "").split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [os.environ.get("PYTHONPATH"), here])
        )

    arguments = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
    import psutil  # comes with Ray

    for left in (2, 1, 0):
        others = set(psutil.Process().children(recursive=True))
        cluster = Cluster()
        try:
            cluster.add_node(**arguments, **more)
            for _ in range(nodes - 1):
                cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
            cluster.wait_for_nodes(timeout=PATIENCE)
            return cluster
        # a node whose agents take over 15 seconds to start is given up, and on a busy machine they
        # do
        except Exception:
            cluster.shutdown()
            # those of the node that did not come up
            for process in set(psutil.Process().children(recursive=True)) - others:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            if not left:
                raise
    raise AssertionError("unreachable")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes of one core each, and a connection that stays."""
    import ray

    found = start(2)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


def go(function: Any, tasks: Any, **more: Any) -> list[Any]:
    return list(map_tasks(function, tasks, on_crash=lambda task: -task, engine="ray", **more))


def test_results_in_order_workers_that_stay_and_few_in_hand(cluster: Any) -> None:
    taken = 0

    def tasks() -> Iterator[int]:
        nonlocal taken
        for number in range(3000):
            taken += 1
            yield number

    results = map_tasks(ray_tasks.square, tasks(), on_crash=abs, engine="ray")
    assert next(results) == 0
    assert taken <= 2 * AHEAD * MAX_BATCH
    assert list(results) == [n * n for n in range(1, 3000)]
    about: set[tuple[int, str]] = set()
    until = time.monotonic() + PATIENCE

    def until_both_came() -> Iterator[int]:
        """One of the two may be late, on a busy machine."""
        yield from range(80)
        while len(about) < 2 and time.monotonic() < until:
            yield 0

    for found in map_tasks(ray_tasks.process, until_both_came(), on_crash=abs, engine="ray"):
        about.add(found)  # type: ignore[arg-type]
    assert len(about) == 2  # processes that stay, and keep their models
    assert {threads for _, threads in about} == {"1"}


def test_a_worker_that_dies_costs_one_task(cluster: Any) -> None:
    assert go(ray_tasks.dies_on_seven, range(30)) == [-7 if n == 7 else n for n in range(30)]


@pytest.mark.slow
def test_an_exception_of_ours_is_shown(cluster: Any) -> None:
    with pytest.raises(ZeroDivisionError):
        go(ray_tasks.fails, range(3))


@pytest.mark.slow
def test_stop_gives_what_is_in_hand(cluster: Any) -> None:
    stop = threading.Event()
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100_000):
            taken.append(number)
            yield number

    results = []
    for result in map_tasks(ray_tasks.square, tasks(), on_crash=abs, engine="ray", stop=stop):
        results.append(result)
        if len(results) == 20:
            stop.set()
    assert results == [n * n for n in taken]


def photos(folder: Path, count: int, side: int = 64) -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = (
            np.random.default_rng(i)
            .integers(0, 255, (side // 8, side // 8, 3), np.uint8)
            .repeat(8, 0)
            .repeat(8, 1)
        )
        Image.fromarray(pixels).save(folder / f"{i:03}.bmp")
    return folder


def without_times(records: Any, output: Path) -> list[dict[str, Any]]:
    return [
        json.loads(json.dumps({**r.to_dict(), "seconds": 0}).replace(str(output), "OUT"))
        for r in records
    ]


@pytest.mark.slow
def test_djpeg_and_the_codec_are_those_of_the_local_engine(
    cluster: Any, tmp_path: Path, any_model: Path
) -> None:
    source = photos(tmp_path / "in", 24)
    (source / "005.bmp").write_bytes(b"BM, but no picture")
    found: dict[str, Any] = {}
    for engine in ("local", "ray"):
        out = tmp_path / engine
        files = find_inputs([str(source)])
        run = run_djpeg(
            files,
            out / "jpeg",
            DjpegSettings(),
            BatchSettings(),
            options=RunOptions(jobs=2, engine=engine),
        )
        codec = run_encode(
            find_inputs([str(source)]),
            out / "vzc",
            EncodeSettings(model=str(any_model)),
            options=RunOptions(jobs=2, engine=engine),
        )
        assert [r.status for r in run.records].count("failed") == 1
        found[engine] = (
            contents(out),
            without_times(run.records, out),
            without_times(codec.records, out),
        )
    assert found["local"] == found["ray"]


@pytest.mark.slow
def test_shards_are_those_of_the_local_engine(cluster: Any, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow
    import pyarrow.parquet

    source = photos(tmp_path / "in", 12)
    names = sorted(source.iterdir())
    for number in range(3):
        with tarfile.open(tmp_path / f"{number}.tar", "w") as tar:
            for path in names[4 * number : 4 * number + 4]:
                tar.add(path, path.name)
    rows = [{"bytes": path.read_bytes(), "path": path.name} for path in names]
    pyarrow.parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "t.parquet")
    found: dict[str, Any] = {}
    for engine in ("local", "ray"):
        files = find_inputs([*sorted(tmp_path.glob("*.tar")), tmp_path / "t.parquet"])
        run = run_djpeg(
            files,
            tmp_path / engine,
            DjpegSettings(),
            BatchSettings(),
            options=RunOptions(jobs=2, engine=engine),
        )
        assert [record.status for record in run.records] == ["ok"] * 24
        found[engine] = contents(tmp_path / engine), without_times(run.records, tmp_path / engine)
    assert found["local"] == found["ray"]
    assert len(found["ray"][0]) == 4


@pytest.mark.slow
def test_eval_is_that_of_the_local_engine(cluster: Any, tmp_path: Path) -> None:
    source = photos(tmp_path / "in", 20)
    Image.open(source / "000.bmp").save(source / "000.jpg", quality=90)  # goes by its coefficients
    settings = EvalSettings(
        classifiers=("watcher",),
        data=str(source),
        codecs=("djpeg:guide=uniform",),
        baselines=("jpeg", "webp"),
    )
    found = {}
    for engine in ("local", "ray"):
        out = tmp_path / engine
        result = run_eval(settings, jobs=2, engine=engine, output=out)
        points = [{**p.to_dict(), "encode_seconds": 0, "decode_seconds": 0} for p in result.points]
        found[engine] = (result.headline, result.data, points, result.warnings)
        assert not out.exists() or list(out.iterdir()) == []  # the images lay there, hidden
    assert found["local"] == found["ray"]


def test_no_cluster_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_engine, "PROBE_SECONDS", 5.0)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        port = silent.getsockname()[1]
        for address in ("127.0.0.1:1", "nonsense", f"127.0.0.1:{port}"):
            # without a limit of ours this would wait for ever
            with pytest.raises(EngineError):
                list(map_tasks(ray_tasks.square, [1], on_crash=abs, engine=f"ray:{address}"))


# --- slow: clusters of their own
# ------------------------------------------------------------------------------------


@pytest.fixture
def three_nodes() -> Iterator[Any]:
    import ray

    ray.shutdown()
    found = start(3)
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
def test_a_node_killed_in_the_middle_loses_nothing(three_nodes: Any, tmp_path: Path) -> None:
    import ray

    source = photos(tmp_path / "in", 60, 256)
    calm = tmp_path / "calm"
    run_djpeg(
        find_inputs([str(source)]),
        calm,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    ray.init(address=three_nodes.address, log_to_driver=False, logging_level="ERROR")
    out = tmp_path / "out"
    out.mkdir()
    (out / "059.jpg").write_bytes(b"mine")  # not ours to replace, also where a batch is done again
    victim = next(node for node in three_nodes.list_all_nodes() if not node.head)
    killed = threading.Event()

    def kill(record: Any) -> None:
        if not killed.is_set() and len(list(out.glob("*.jpg"))) >= 6:
            killed.set()
            three_nodes.remove_node(victim, allow_graceful=False)

    run = run_djpeg(
        find_inputs([str(source)]),
        out,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(engine="ray", on_record=kill),
    )
    assert killed.is_set()
    assert [r.status for r in run.records] == ["ok"] * 59 + ["skipped"]
    expected = contents(calm)
    expected["059.jpg"] = b"mine"
    assert contents(out) == expected


@pytest.mark.slow
def test_every_task_of_a_lost_node_is_done_by_another(three_nodes: Any, tmp_path: Path) -> None:
    import ray

    ray.init(address=three_nodes.address, log_to_driver=False, logging_level="ERROR")
    nodes = [node for node in three_nodes.list_all_nodes() if not node.head]
    results = []
    for result in map_tasks(
        ray_tasks.counted,
        [(str(tmp_path), n) for n in range(120)],
        on_crash=lambda task: -1,
        engine="ray",
    ):
        results.append(result)
        if len(results) in (10, 40):
            three_nodes.remove_node(nodes.pop(), allow_graceful=False)
    assert results == list(range(120))


@pytest.mark.slow
def test_a_worker_that_dies_once_is_forgiven(cluster_of_one: Any, tmp_path: Path) -> None:
    tasks = [(str(tmp_path), n) for n in range(20)]
    assert list(map_tasks(ray_tasks.dies_once, tasks, on_crash=lambda t: -1, engine="ray")) == list(
        range(20)
    )


@pytest.fixture
def cluster_of_one() -> Iterator[Any]:
    import ray

    ray.shutdown()
    found = start(1)
    ray.init(address=found.address, log_to_driver=False, logging_level="ERROR")
    yield found
    ray.shutdown()
    found.shutdown()


@pytest.mark.slow
def test_ctrl_c_writes_the_report_and_the_next_run_does_the_rest(tmp_path: Path) -> None:
    source, out = photos(tmp_path / "in", 400, 256), tmp_path / "out"
    arguments = [
        "djpeg",
        "in",
        "-o",
        "out",
        "--guide",
        "uniform",
        "--engine",
        "ray",
        "-j",
        "2",
        "--resume",
        "--json",
        "--quiet",
    ]
    command = [sys.executable, "-m", "vizcomp", *arguments]
    environment = {**os.environ, "RAY_ADDRESS": ""}
    one = subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: len(list(out.glob("*.jpg"))) >= 5, unless=one.poll)
    one.send_signal(signal.SIGINT)
    said, errors = one.communicate(timeout=PATIENCE)
    assert one.returncode == 130, errors
    report = json.loads(said)  # nothing else on standard output
    assert report == json.loads((out / "report.json").read_text())
    done = report["totals"]["files"]
    assert 5 <= done < 400
    assert {Path(f["output"]).name for f in report["files"]} == {p.name for p in out.glob("*.jpg")}
    rest = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert [f["status"] for f in json.loads(rest.stdout)["files"]] == ["ok"] * 400
    calm = tmp_path / "calm"
    run_djpeg(
        find_inputs([str(source)]),
        calm,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    assert {k: v for k, v in contents(out).items() if k.endswith(".jpg")} == contents(calm)


@pytest.mark.slow
def test_s3_through_ray_with_failing_requests_and_a_lost_node(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ray
    from object_store import serve

    server, faults, address = serve()
    for name, value in (
        ("AWS_ENDPOINT_URL", address),
        ("AWS_ACCESS_KEY_ID", "test"),
        ("AWS_SECRET_ACCESS_KEY", "test"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
    ):
        monkeypatch.setenv(name, value)
    _system.cache_clear()
    _system("s3").call_s3("create_bucket", Bucket="ray")
    source = photos(tmp_path / "in", 40, 128)
    for path in source.iterdir():
        StorePath("s3", "ray", f"in/{path.name}").write_bytes(path.read_bytes())
    calm = tmp_path / "calm"
    run_djpeg(
        find_inputs([str(source)]),
        calm,
        DjpegSettings(guide="uniform"),
        BatchSettings(),
        options=RunOptions(jobs=1),
    )
    ray.shutdown()
    cluster = start(3)  # its nodes take the environment
    try:
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        faults.share = 0.1
        lost: list[Any] = [node for node in cluster.list_all_nodes() if not node.head]

        def kill(record: Any) -> None:
            if len(lost) == 2:
                cluster.remove_node(lost.pop(), allow_graceful=False)

        out = StorePath("s3", "ray", "out/")
        files = find_inputs(["s3://ray/in"])
        run = run_djpeg(
            files,
            out,
            DjpegSettings(guide="uniform"),
            BatchSettings(),
            options=RunOptions(engine="ray", on_record=kill),
        )
        faults.share = 0.0
        assert sum(faults.failed.values()) >= 5
        assert [r.status for r in run.records] == ["ok"] * 40
        assert {place.name: place.read_bytes() for place, _ in out.list()} == contents(calm)
    finally:
        faults.share = 0.0
        ray.shutdown()
        cluster.shutdown()
        server.shutdown()
        _system.cache_clear()
