"""The engine `ray`: tasks over the actors of a Ray cluster (Moritz et al., "Ray: A Distributed
Framework for Emerging AI Applications", OSDI 2018), results in the order of the tasks.

    tasks ──▶ batches of about BATCH_SECONDS ──▶ one actor for each core, IN_FLIGHT batches each ──▶
    results, put in order

An actor is a process that stays, so a model is loaded once in it. What is taken from the stream of
tasks and not yet given back is limited: memory of this process does not grow with their number, and
Ray never holds more than IN_FLIGHT references for each actor.

A worker that dies while its node lives has died of one of the tasks of its batch: each of these is
tried once more, alone, and what dies then is given to `on_crash`. When a node dies, its batches
move to other nodes unchanged.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from vizcomp._version import __version__
from vizcomp.batch.local_engine import IN_WORKER
from vizcomp.errors import EngineError, MissingExtraError, first_line
from vizcomp.weights.sessions import available_cores

# batches for each actor: one at work, one that waits, so that none is idle while a result travels
IN_FLIGHT = 2
BATCH_SECONDS = 0.5  # enough to hide a round trip of a few milliseconds, little to lose with a node
MAX_BATCH = 32
# batches for each actor that may be taken from the stream before the oldest result is there
AHEAD = 4
LOSSES = 3  # nodes that a task may lose before it is itself suspected of bringing them down
WHERE = "check `ray_address`, and `ray status` there"
CONNECT_SECONDS = 5.0
PROBE_SECONDS = 30.0
# without any worker; a cluster that grows on demand takes minutes for a machine
START_SECONDS = 180.0
OBJECT_STORE_BYTES = 128 << 20  # of a local cluster: nothing large goes through it

logger = logging.getLogger(__name__)


class _Remote:
    """What runs in an actor. It stays at module top, so that nodes load it from their own
    installation."""

    def __init__(self, function: Callable[[Any], Any], folder: str, offline: str) -> None:
        os.environ[IN_WORKER] = "1"
        if offline:
            os.environ["VIZCOMP_OFFLINE"] = offline
        # relative names mean the same there, if there is such a folder
        with contextlib.suppress(OSError):
            os.chdir(folder)
        self._function = function

    def about(self) -> tuple[str, str]:
        """The node, and the version of this package there."""
        import ray

        return ray.get_runtime_context().get_node_id(), __version__

    def run(self, tasks: list[Any]) -> tuple[list[Any], float]:
        """The results of some tasks, and the seconds they took."""
        started = time.perf_counter()
        return [self._function(task) for task in tasks], time.perf_counter() - started


@dataclasses.dataclass(eq=False)
class _Tried:
    """A task, its place in the order, and what befell it."""

    number: int
    task: Any
    deaths: int = 0
    losses: int = 0


@dataclasses.dataclass(eq=False)
class _Actor:
    handle: Any
    starting: Any
    node: str = ""
    alone: bool = False  # has a suspect, and gets nothing else meanwhile
    batches: collections.deque[tuple[Any, list[_Tried]]] = dataclasses.field(
        default_factory=collections.deque
    )


def map_ray(
    function: Callable[[Any], Any],
    tasks: Iterable[Any],
    *,
    on_crash: Callable[[Any], Any],
    again: Callable[[Any], Any],
    jobs: int,
    address: str,
    stop: threading.Event,
    on_death: Callable[[], None],
) -> Iterator[Any]:
    """As `engines.map_tasks`, on a Ray cluster.

    Args:
        jobs: actors; 0: one for each core of the cluster.
        address: host:port of a cluster's head, "ray://host:port" of its client server, "auto"; "":
            what RAY_ADDRESS says, or a cluster on this machine for this run. A program that has
            called `ray.init` keeps its own.

    Raises:
        MissingExtraError: Ray is not installed.
        EngineError: no cluster answers at the address; its nodes lack this package or have another
            version of it; there is no node left.
    """
    ray = _import_ray()
    address = address or os.environ.get("RAY_ADDRESS", "")
    with _connected(ray, address, jobs):
        run = _Run(ray, function, iter(tasks), on_crash, again, jobs, stop, on_death)
        try:
            yield from run.results()
        finally:
            run.close()


def _import_ray() -> Any:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no usage report is sent
    try:
        import ray
    except ImportError as exc:
        raise MissingExtraError("Ray", "ray") from exc
    return ray


@contextlib.contextmanager
def _connected(ray: Any, address: str, jobs: int) -> Iterator[None]:
    if ray.is_initialized():
        yield
        return
    folder = ""
    options: dict[str, Any] = {"logging_level": logging.ERROR, "log_to_driver": False}
    if address:
        _check_address(address)
        options["address"] = address
    else:
        options |= {
            "address": "local",
            "num_cpus": jobs or available_cores(),
            "include_dashboard": False,
        }
        options["object_store_memory"] = OBJECT_STORE_BYTES
        # as the workers of the local engine; Ray's own default is 15
        os.environ.setdefault("RAY_worker_niceness", "0")
        # the path of a socket has 107 characters at most, and Ray adds about 80
        if len(tempfile.gettempdir()) <= 16:
            folder = tempfile.mkdtemp(prefix="vizcomp-")
            options["_temp_dir"] = folder
    here = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if here else None
    try:
        try:
            ray.init(**options)
        except (Exception, SystemExit) as exc:
            where = f"at {address}" if address else "on this machine"
            hint = (
                WHERE
                if address
                else "try again when the machine is less busy, or omit `engine` ray"
            )
            raise _refused(f"no Ray cluster {where}: {first_line(exc)}", hint) from exc
        finally:
            if here and handler is not None:
                # Ray puts its own in place, which ends without a report
                signal.signal(signal.SIGTERM, handler)
        with _quiet(ray):
            yield
    finally:
        ray.shutdown()
        if here and handler is not None:
            signal.signal(signal.SIGTERM, handler)
        if folder:
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _quiet(ray: Any) -> Iterator[None]:
    """Ray prints the deaths of workers to standard output, whatever its settings: there stands the
    report of --json."""
    module = getattr(ray._private, "worker", None)
    printed = getattr(module, "print_to_stdstream", None)
    if module is None or printed is None:
        yield
        return
    module.print_to_stdstream = lambda data, ignore_prefix=False: logger.debug(
        "%s", " ".join(data.get("lines", []))
    )
    try:
        yield
    finally:
        module.print_to_stdstream = printed


def _check_address(address: str) -> None:
    """Fails soon where nobody answers: `ray.init` itself waits for minutes, and cannot be
    interrupted."""
    if address == "auto":
        return
    client = address.startswith("ray://")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise _refused(
            f"{address!r} is no address of a Ray cluster", "use HOST:PORT, ray://HOST:PORT or auto"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_SECONDS).close()
    except OSError as exc:
        raise _refused(f"no Ray cluster at {address}: {first_line(exc)}", WHERE) from exc
    if client:
        return  # the client has a limit of its own
    probe = [sys.executable, "-m", "ray.scripts.scripts", "health-check", "--address", address]
    try:
        probed = subprocess.run(
            probe, capture_output=True, text=True, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL
        )
    except subprocess.TimeoutExpired as exc:
        raise _refused(
            f"what listens at {address} does not answer as a Ray cluster", "check `ray_address`"
        ) from exc
    if probed.returncode != 0:
        said = [line for line in probed.stderr.splitlines() if line.strip()][-1:]
        reason = said[0].strip() if said else f"exit code {probed.returncode}"
        raise _refused(
            f"no Ray cluster at {address}: {reason}",
            "use one version of Ray and of Python on all machines",
        )


def _refused(message: str, hint: str) -> EngineError:
    """Nothing has been done, and the command is to be put right: exit code 2."""
    error = EngineError(message, hint)
    error.exit_code = 2
    return error


class _Run:
    """One pass of tasks over actors."""

    def __init__(
        self,
        ray: Any,
        function: Callable[[Any], Any],
        stream: Iterator[Any],
        on_crash: Callable[[Any], Any],
        again: Callable[[Any], Any],
        jobs: int,
        stop: threading.Event,
        on_death: Callable[[], None],
    ) -> None:
        self._ray = ray
        self._on_crash = on_crash
        self._again = again
        self._stop = stop
        self._on_death = on_death
        self._stream: Iterator[tuple[int, Any]] = enumerate(stream)
        self._exhausted = False
        self._taken = 0
        self._next = 0  # the number of the result that is given back next
        self._done: dict[int, Any] = {}
        self._retries: collections.deque[list[_Tried]] = collections.deque()
        self._suspects: collections.deque[_Tried] = collections.deque()
        self._batch_size = 1
        remote = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Remote)
        offline = os.environ.get("VIZCOMP_OFFLINE", "")
        self._start: Callable[[], Any] = lambda: remote.remote(function, os.getcwd(), offline)
        self._count = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._actors: list[_Actor] = []
        self._since = time.monotonic()  # when there was a worker last

    def results(self) -> Iterator[Any]:
        """All of them, in order; after `stop` those of what is in hand."""
        first = list(itertools.islice(self._stream, self._count))
        self._count = min(self._count, len(first))
        self._stream = itertools.chain(first, self._stream)
        del first
        while True:
            self._hand_out()
            while self._next in self._done:
                yield self._done.pop(self._next)
                self._next += 1
            if self._next == self._taken and (self._exhausted or self._stop.is_set()):
                return
            self._wait()

    def close(self) -> None:
        """End the workers; what they have in hand is dropped."""
        for actor in self._actors:
            self._kill(actor)
        self._actors = []

    def _kill(self, actor: _Actor) -> None:
        with contextlib.suppress(Exception):
            self._ray.kill(actor.handle, no_restart=True)

    # --- out

    def _hand_out(self) -> None:
        more = not self._exhausted and not self._stop.is_set()
        if more or self._retries or self._suspects:
            while len(self._actors) < self._count:
                handle = self._start()
                self._actors.append(_Actor(handle, handle.about.remote()))
        for depth in range(IN_FLIGHT):  # one batch for each before the second for any
            for actor in self._actors:
                if not actor.node or actor.alone or len(actor.batches) != depth:
                    continue
                batch = self._batch(free=depth == 0)
                if not batch:
                    continue
                actor.alone = len(batch) == 1 and batch[0].deaths > 0
                actor.batches.append(
                    (actor.handle.run.remote([tried.task for tried in batch]), batch)
                )

    def _batch(self, *, free: bool) -> list[_Tried]:
        """What an actor gets next; a suspect only where the actor is free."""
        if self._suspects and free:
            return [self._suspects.popleft()]
        if self._retries:
            return self._retries.popleft()
        if self._stop.is_set():
            return []
        limit = AHEAD * self._count * self._batch_size
        room = min(self._batch_size, limit - (self._taken - self._next))
        if self._exhausted or room <= 0:
            return []
        attempts = [_Tried(number, task) for number, task in itertools.islice(self._stream, room)]
        self._taken += len(attempts)
        self._exhausted = len(attempts) < room
        return attempts

    # --- back

    def _wait(self) -> None:
        starting = {actor.starting: actor for actor in self._actors if not actor.node}
        heads = {actor.batches[0][0]: actor for actor in self._actors if actor.batches}
        waited = [*heads, *starting]
        if any(actor.node for actor in self._actors):
            self._since = time.monotonic()
        elif time.monotonic() - self._since > START_SECONDS:
            raise EngineError(
                f"the Ray cluster has given no worker for {START_SECONDS:.0f} s",
                "check `ray status`; `resume` goes on with what is not done",
            )
        if not waited:
            time.sleep(0.05)
            return
        ready, _ = self._ray.wait(waited, num_returns=1, timeout=0.2)
        if ready:
            ready, _ = self._ray.wait(waited, num_returns=len(waited), timeout=0)
        for ref in ready:
            if ref in starting:
                self._started(starting[ref])
            else:
                self._returned(heads[ref])

    def _started(self, actor: _Actor) -> None:
        errors = self._ray.exceptions
        try:
            node, version = self._ray.get(actor.starting)
        except errors.RayActorError as exc:
            self._actors.remove(actor)
            if getattr(exc, "actor_init_failed", False) or "init" in str(exc).lower():
                lines = [line.strip() for line in str(exc).splitlines() if line.strip()]
                raise _refused(
                    "a worker on the Ray cluster does not start:"
                    f" {lines[-1][:200] if lines else 'no reason given'}",
                    f"install vizcomp {__version__} on every node",
                ) from exc
            return  # its node has gone: another takes its place
        if version != __version__:
            raise _refused(
                f"a node of the Ray cluster has vizcomp {version}, this is {__version__}",
                "install one version on all",
            )
        actor.node = node

    def _returned(self, actor: _Actor) -> None:
        errors = self._ray.exceptions
        lost = (
            *(
                errors.RayActorError,
                errors.WorkerCrashedError,
                errors.NodeDiedError,
                errors.OutOfMemoryError,
            ),
            *(errors.ObjectLostError, errors.LocalRayletDiedError),
        )
        ref, batch = actor.batches[0]
        try:
            results, seconds = self._ray.get(ref)
        except lost as exc:
            self._lost(actor, exc)
            return
        actor.batches.popleft()
        actor.alone = False
        for tried, result in zip(batch, results, strict=True):
            self._done[tried.number] = result
        each = max(seconds / len(batch), 1e-6)
        self._batch_size = max(1, min(MAX_BATCH, 2 * self._batch_size, int(BATCH_SECONDS / each)))

    def _lost(self, actor: _Actor, exc: Exception) -> None:
        """An actor is gone: of its batches the first was at work (they run in order), the others
        had not begun."""
        self._actors.remove(actor)
        self._kill(actor)
        self._on_death()
        alive = {node["NodeID"] for node in self._ray.nodes() if node["Alive"]}
        errors = self._ray.exceptions
        blameless = isinstance(
            exc, errors.ObjectLostError | errors.ActorUnavailableError
        ) or getattr(exc, "preempted", False)
        node_lost = actor.node not in alive or blameless
        logger.info(
            "a worker of node %s is gone (%s)",
            actor.node[:8],
            "with its node" if node_lost else first_line(exc),
        )
        (_, first), *others = actor.batches
        for tried in first:
            tried.losses += node_lost
            tried.deaths += not node_lost or tried.losses >= LOSSES
            tried.task = self._again(tried.task)
        if any(tried.deaths for tried in first):
            for tried in first:
                if tried.deaths > 1:
                    self._done[tried.number] = self._on_crash(tried.task)
                else:
                    self._suspects.append(tried)
        else:
            self._retries.append(first)
        self._retries.extend(batch for _, batch in others)
