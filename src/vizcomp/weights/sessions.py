"""Opening ONNX files with ONNX Runtime: the options that all share, and the checks on networks of
our own."""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
from pathlib import Path
from typing import Any, NamedTuple

from vizcomp.errors import ModelError


class Network(NamedTuple):
    """An open network: what runs it (a session, or something like one), its metadata, the types of
    its inputs, the SHA-256 of its file in hexadecimal, and where that lies."""

    session: Any
    words: dict[str, str]
    inputs: dict[str, str]
    fingerprint: str
    path: Path


def available_cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def open_session(
    source: str | bytes, *, threads: int = 1, arena: bool = True, quiet: bool = False
) -> Any:
    """An InferenceSession on the CPU, which says nothing of itself: what is wrong is said by its
    exceptions.

    Args:
        source: path or content of an .onnx file.
        arena: keep the memory of a run for the next one.
        quiet: threads that wait do not spin.

    Raises:
        Exception: it cannot be read; ONNX Runtime's exceptions share no other base class.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.enable_cpu_mem_arena = arena
    if quiet:
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])


def open_network(
    path: Path | None, bundled: str, name: str, *, what: str, hint: str, threads: int = 1
) -> Network:
    """A network that vizcomp exported, run by compiled loops where they can (`looking`), else by
    ONNX Runtime.

    Args:
        path: the file; None for the one that comes with the package.
        bundled: the name of that one.
        name: as the file's metadata must have it.
        what: such a network, in words; hint: where to get one.

    Raises:
        ModelError: the file is missing, damaged, or no such network.
        WeightsMissingError: the package was installed without it.
    """
    from vizcomp.weights import table
    from vizcomp.weights.looking import opened

    path = table.bundled_path(bundled) if path is None else path
    try:
        data = path.read_bytes()
    except OSError as exc:
        raise ModelError(f"{path}: {exc.strerror or exc}", hint) from exc
    session = opened(data) if threads == 1 else None
    if session is not None:
        metadata, inputs = session.words, session.inputs
    else:
        try:
            # it would keep what one large photo took
            session = open_session(data, threads=threads, arena=False)
            metadata = session.get_modelmeta().custom_metadata_map
            inputs = {each.name: each.type for each in session.get_inputs()}
        except Exception as exc:
            raise ModelError(f"{path} is not an ONNX file that can be read", hint) from exc
    if metadata.get("name") != name:
        raise ModelError(f"{path} is an ONNX file, but no {what} of vizcomp", hint)
    return Network(session, metadata, inputs, hashlib.sha256(data).hexdigest(), path)


def return_memory() -> None:
    """Gives freed memory back to the system, which glibc else keeps: of large photos, or of weights
    that were unpacked."""
    # another C library has no such function
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
