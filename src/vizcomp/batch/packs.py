"""What `decode` does with a pack: a plan, its parts, its record."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import itertools
import time
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from vizcomp.batch.groups import Pixels, threads_for, within_memory
from vizcomp.batch.items import Item, one_line, size_of
from vizcomp.batch.log import Log
from vizcomp.batch.records import CodecRecord, CodecStatus
from vizcomp.batch.settings import DecodeSettings
from vizcomp.errors import FormatError, OutputError, TruncatedError, VizcompError
from vizcomp.files.find import InputFile
from vizcomp.files.names import is_there
from vizcomp.files.place import printable
from vizcomp.files.read import FileState, file_state, map_file
from vizcomp.files.store import AnyPath
from vizcomp.files.write import write_atomic
from vizcomp.metrics import bits_per_pixel
from vizcomp.neural.packs import VzcPack
from vizcomp.neural.tiling import BATCH
from vizcomp.photos.encode import encode_png
from vizcomp.vzc import image as vzc
from vizcomp.vzc.pack_layout import BLOCK
from vizcomp.vzc.packs import PackReader

MAX_PACKED_PIXELS = 1 << 21  # packs are decoded whole, without tiles


class PackTarget(NamedTuple):
    """An image of a pack: its number, where it goes, whether a file there may be replaced, and
    whether it is done already."""

    number: int
    path: AnyPath
    replace: bool
    known: bool
    fresh: bool = False


@dataclasses.dataclass(frozen=True)
class PackTask:
    """Some images of one pack."""

    item: Item
    targets: tuple[PackTarget, ...]
    settings: DecodeSettings
    jobs: int = 0

    @property
    def items(self) -> tuple[Item, ...]:
        return (self.item,)

    def again(self) -> PackTask:
        """As `items.Task`."""
        return dataclasses.replace(
            self, targets=tuple(t._replace(replace=t.replace or t.fresh) for t in self.targets)
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackPart:
    """What became of some images of a pack; `lost` and `skipped` are not among `images`."""

    images: int = 0
    skipped: int = 0
    lost: int = 0
    error: VizcompError | None = None
    pixels: int = 0
    output_bytes: int = 0
    sizes: frozenset[tuple[int, int]] = frozenset()
    iterations: frozenset[int] = frozenset()
    seconds: float = 0.0
    written: tuple[PackedImage, ...] = ()


@dataclasses.dataclass(frozen=True)
class PackedImage:
    """One image of a pack that was written: what a later run must know of it."""

    target: AnyPath
    state: FileState
    width: int
    height: int
    iterations: int

    def to_dict(self) -> dict[str, Any]:
        """What the journal keeps, as JSON types."""
        return {
            "width": self.width,
            "height": self.height,
            "iterations": self.iterations,
            "bytes": self.state[0],
        }


def _check_remembered(values: dict[str, Any]) -> None:
    """Raises TypeError for what `PackedImage.to_dict` does not give."""
    for key in ("width", "height", "iterations", "bytes"):
        if type(values.get(key)) is not int:
            raise TypeError(f"{key} is no whole number")


@dataclasses.dataclass(frozen=True)
class PackPlan:
    """A pack whose parts are about to come; `broken` is what could not even be planned, `done` what
    an earlier run did."""

    file: InputFile
    folder: AnyPath
    count: int
    broken: PackPart
    tasks: tuple[PackTask, ...]
    done: PackPart = PackPart()  # frozen
    source_state: FileState | None = None


def planned_pack(item: Item, settings: DecodeSettings, jobs: int, log: Log) -> PackPlan | None:
    """How a pack is to be unpacked; None for what is no pack, or cannot be opened as one."""
    file, path = item.file, item.target
    assert path is not None
    try:
        data = map_file(file.path, check=lambda head, name: vzc.kind(head))
        if vzc.kind(data) != "pack":
            return None
        reader = PackReader(data, max_pixels=settings.max_pixels, allow_truncated=True)
    except VizcompError:
        return None
    log.give_up(item)  # its outputs are those of its images
    entries: list[tuple[int, str | None, str | None]] = []
    broken = PackPart(error=TruncatedError(reader.problem) if reader.problem else None)
    for first in range(0, len(reader), BLOCK):
        block = range(first, min(first + BLOCK, len(reader)))
        try:
            for i in block:
                label = reader.label(i)
                entries.append(
                    (i, reader.name(i), None if label is None else reader.classes[label])
                )
        except FormatError as exc:
            entries = [each for each in entries if each[0] < first]
            broken = dataclasses.replace(
                broken, lost=broken.lost + len(block), error=broken.error or exc
            )
    folder = path.with_name(path.name.removesuffix(".png"))
    source_state = None
    if log.journal is not None:
        with contextlib.suppress(OSError):
            source_state = file_state(file.path)
    done, targets = PackPart(), []
    for i, name in _png_names(entries, len(str(max(0, len(reader) - 1)))):
        each = log.item(file, folder / name, reads=_check_remembered)
        targets.append(
            PackTarget(i, folder / name, each.replace, each.known is not None, each.fresh)
        )
        if each.known is not None:
            done = _with_one_more(
                done,
                each.known["width"],
                each.known["height"],
                each.known["iterations"],
                each.known["bytes"],
            )
    # The images of a batch stay together in every run, as `GroupImage` says of `company`.
    batches = [tuple(targets[a : a + BATCH]) for a in range(0, len(targets), BATCH)]
    batches = [batch for batch in batches if not all(each.known for each in batch)]
    # one at least, to bring the record
    tasks = tuple(PackTask(item, batch, settings, jobs) for batch in batches or [()])
    return PackPlan(file, folder, len(reader), broken, tasks, done, source_state)


def _with_one_more(part: PackPart, width: int, height: int, iterations: int, size: int) -> PackPart:
    return dataclasses.replace(
        part,
        images=part.images + 1,
        pixels=part.pixels + width * height,
        output_bytes=part.output_bytes + size,
        sizes=part.sizes | {(width, height)},
        iterations=part.iterations | {iterations},
    )


def _png_names(
    entries: Sequence[tuple[int, str | None, str | None]], digits: int
) -> list[tuple[int, PurePosixPath]]:
    """Where the images of a pack go, given as (number, name, class): all different, also where
    upper and lower case are one.

    A name keeps its folders, and gets the suffix .png: `a.jpg` becomes `a.png`, or `a.jpg.png`
    where the pack has an `a.png`. A class that is not among the folders of the name becomes one. An
    image without a name has its number for one.
    """
    paths: dict[int, PurePosixPath] = {}
    taken: set[str] = set()

    def claim(number: int, *candidates: PurePosixPath) -> None:
        numbered = (
            candidates[-1].with_name(f"{candidates[-1].stem}-{n}.png") for n in itertools.count(2)
        )
        for path in itertools.chain(candidates, numbered):
            if (key := str(path).casefold()) not in taken:
                taken.add(key)
                paths[number] = path
                return

    for as_they_are in (True, False):
        for number, name, label in entries:
            path = PurePosixPath(name if name is not None else f"{number:0{digits}}.png")
            if label is not None and f"/{label}/" not in f"/{path.parent}/":
                path = label / path
            if (name is not None and path.suffix == ".png") != as_they_are:
                continue
            claim(number, path.with_suffix(".png"), path.with_name(f"{path.name}.png"))
    return [(number, paths[number]) for number, _, _ in entries]


@functools.lru_cache(maxsize=1)
def _pack(path: AnyPath, model: str | None, max_pixels: int, jobs: int) -> VzcPack:
    """One pack and its codec for each process."""
    return VzcPack(
        path, model=model, max_pixels=max_pixels, threads=threads_for(jobs), allow_truncated=True
    )


def _is_there(path: AnyPath) -> bool:
    with contextlib.suppress(OutputError):  # found and said again where it is written
        return is_there(path)
    return False


def decode_pack(task: PackTask) -> PackPart:
    started = time.perf_counter()
    settings = task.settings
    part = PackPart()
    todo: list[PackTarget] = []
    for each in task.targets:
        if _is_there(each.path) and not (
            settings.overwrite or settings.dry_run or each.replace or each.known
        ):
            part = dataclasses.replace(part, skipped=part.skipped + 1)
        else:
            todo.append(each)
    path = task.item.file.path
    try:
        pack = (
            _pack(path, next(iter(settings.models), None), settings.max_pixels, task.jobs)
            if todo
            else None
        )
    except VizcompError as exc:
        pack, part = (
            None,
            dataclasses.replace(part, lost=sum(not each.known for each in todo), error=exc),
        )
        todo = []
    while pack is not None and todo:
        count = _how_many(pack, todo)
        part, todo = _decode_portion(pack, task.item, todo[:count], settings, part), todo[count:]
    return dataclasses.replace(part, seconds=time.perf_counter() - started)


def _how_many(pack: VzcPack, todo: Sequence[PackTarget]) -> int:
    """How many of the next images go through together without taking much memory: one at least."""
    room = 1 << 24  # pixels
    for count, each in enumerate(todo):
        try:
            width, height = pack.reader.size(each.number)
        except FormatError:
            return max(1, count)
        room -= width * height
        if room < 0:
            return max(1, count)
    return len(todo)


def _decode_portion(
    pack: VzcPack, item: Item, todo: Sequence[PackTarget], settings: DecodeSettings, part: PackPart
) -> PackPart:
    """Images that are decoded together; where that fails, each alone."""

    def pixels_of(numbers: list[int]) -> list[Pixels]:
        portion: list[Pixels] = within_memory(
            lambda chosen: pack.batch(chosen, iterations=settings.iterations), numbers
        )
        return portion

    if all(each.known for each in todo):
        return part
    root = item.root if item.root is not None else (item.target or item.file.path).parent
    images: list[Pixels] = []
    with contextlib.suppress(FormatError, MemoryError):
        images = pixels_of([each.number for each in todo])
    for at, each in enumerate(todo):
        if each.known:
            continue
        state: FileState | None = None
        try:
            image = images[at] if images else pixels_of([each.number])[0]
            data = encode_png(image)
            if not settings.dry_run:
                write_atomic(each.path, data, below=root)
                with contextlib.suppress(OSError):
                    state = file_state(each.path)
        except (VizcompError, MemoryError) as exc:
            error = (
                exc
                if isinstance(exc, VizcompError)
                else VizcompError("out of memory", "try fewer `jobs`")
            )
            part = dataclasses.replace(part, lost=part.lost + 1, error=part.error or error)
            continue
        entry = pack.reader.entry(each.number)
        iterations = min(entry.iterations, settings.iterations or entry.iterations)
        part = _with_one_more(part, entry.width, entry.height, iterations, len(data))
        if state is not None:
            one = PackedImage(each.path, state, entry.width, entry.height, iterations)
            part = dataclasses.replace(part, written=(*part.written, one))
    return part


def pack_record(plan: PackPlan, parts: Sequence[PackPart], settings: DecodeSettings) -> CodecRecord:
    """The record of a whole pack; a part that has not come was interrupted."""
    parts = (plan.broken, plan.done, *parts)
    done, skipped, lost = (
        sum(getattr(p, what) for p in parts) for what in ("images", "skipped", "lost")
    )
    missing = plan.count - done - skipped - lost
    error = next((p.error for p in parts if p.error is not None), None)
    sizes = frozenset[tuple[int, int]]().union(*(p.sizes for p in parts))
    iterations = frozenset[int]().union(*(p.iterations for p in parts))
    width, height = next(iter(sizes)) if len(sizes) == 1 else (0, 0)
    pixels = sum(p.pixels for p in parts)
    source = size_of(plan.file.path)
    record = CodecRecord(
        input=plan.file.shown,
        output=printable(plan.folder) if done and not settings.dry_run else None,
        status="ok",
        width=width,
        height=height,
        images=done,
        pixels=pixels,
        source_bytes=source,
        output_bytes=sum(p.output_bytes for p in parts),
        iterations=next(iter(iterations)) if len(iterations) == 1 else 0,
        bpp=bits_per_pixel(source, pixels) if pixels and done == plan.count else None,
        seconds=sum(p.seconds for p in parts),
        notices=() if plan.count else ("the pack holds no images",),
    )
    if error is not None:
        text = one_line(error)
        if lost and (done or lost < plan.count):
            text = f"{lost} of {plan.count} images lost: {text}"
        status: CodecStatus = "partial" if done or skipped else "failed"
        return dataclasses.replace(
            record, status=status, error=text, error_type=type(error).__name__
        )
    if missing:
        return dataclasses.replace(
            record,
            status="partial",
            error=f"interrupted: {missing} of {plan.count} images are missing",
        )
    if skipped == plan.count and skipped:
        return dataclasses.replace(
            record, status="skipped", error="output exists; `overwrite` replaces it"
        )
    if skipped:
        return dataclasses.replace(
            record,
            notices=(f"{skipped} of {plan.count} images were there; `overwrite` replaces them",),
        )
    return record
