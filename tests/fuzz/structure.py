"""Kinds of hostile files that `guard` makes by their structure (`containers`, `archives`), and how
each is opened.

Photos go the whole way of `djpeg`, archives are read as data sets and written again as shards,
labels are moved, and what vizcomp
keeps for itself (journals, records of the cache, policies) is read back.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import io
import json
import random
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "golden"


def load(name: str) -> ModuleType:
    """A neighbour of this file, by path: `tests` is no package."""
    if f"fuzz_{name}" not in sys.modules:
        spec = importlib.util.spec_from_file_location(f"fuzz_{name}", HERE / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[f"fuzz_{name}"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[f"fuzz_{name}"]


containers, archives = load("containers"), load("archives")


@contextlib.contextmanager
def place(name: str, data: bytes) -> Iterator[Path]:
    """A file of this name in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vizcomp-fuzz-") as folder:
        path = Path(folder) / name
        path.write_bytes(data)
        yield path


# --- photos ---------------------------------------------------------------------------------------


@functools.cache
def pictures() -> Any:
    import numpy as np

    small = np.random.default_rng(0).integers(0, 256, (5, 7, 4), np.uint8)
    return small.repeat(8, 0).repeat(8, 1)


def photos(*kinds: str) -> list[bytes]:
    """Small photos with a profile, EXIF, XMP and several frames, where a format can have them."""
    from PIL import Image, ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x0112], exif[0x010E], exif[0x8298] = 6, "a description", "somebody"
    exif.get_ifd(0x8769)[0x9003] = "2026:01:01 00:00:00"
    exif.get_ifd(0x8825)[1] = "N"
    if "HEIF" in kinds:
        import pillow_heif

        pillow_heif.register_heif_opener()
    if "JXL" in kinds:
        import pillow_jxl  # noqa: F401
    files = []
    for kind in kinds:
        for mode in ("RGB", "L", "RGBA", "P", "CMYK", "I;16", "1"):
            pixels = pictures()
            image = Image.fromarray(
                pixels if mode in ("RGBA", "CMYK") else pixels[..., :3],
                mode if mode == "CMYK" else None,
            )
            image = (
                image
                if mode in ("CMYK", "RGBA")
                else image.convert("I").convert("I;16")
                if mode == "I;16"
                else image.convert(mode)
            )
            several = {"save_all": True, "append_images": [image, image], "duration": 50}
            for options in (
                {},
                {"icc_profile": profile, "exif": exif, "xmp": b"<x:xmpmeta/>"},
                several,
                {"progressive": True},
            ):
                out = io.BytesIO()
                with contextlib.suppress(
                    OSError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError
                ):
                    image.save(out, kind, **options)
                    files.append(out.getvalue())
    return list(dict.fromkeys(files))


def jxl_containers() -> list[bytes]:
    """JPEG XL as a codestream and in boxes (ISO/IEC 18181-2), with EXIF beside it."""
    made = []
    for data in photos("JXL"):
        made.append(data)
        if data[:2] == b"\xff\x0a":
            boxes = [
                (b"JXL ", b"\r\n\x87\n"),
                (b"ftyp", b"jxl \0\0\0\0jxl "),
                (b"Exif", bytes(4) + b"II*\0\x08\0\0\0\0\0\0\0\0\0"),
            ]
            half = len(data) // 2
            parts = [(b"jxlp", bytes(4) + data[:half]), (b"jxlp", b"\x80\0\0\1" + data[half:])]
            for rest in ([(b"jxlc", data)], parts):
                made.append(
                    containers.join_boxes(
                        [containers.Part(name, body) for name, body in [*boxes, *rest]]
                    )
                )
    return made


def make_photo(files: list[bytes], dice: random.Random) -> bytes:
    data = dice.choice(files)
    if data[:2] == b"\xff\x0a":
        return containers.stir_bytes(data[:2] + data[2:], dice)  # type: ignore[no-any-return]
    return containers.changed(data, dice, files)  # type: ignore[no-any-return]


def compress_photo(data: bytes, dice: random.Random) -> str:
    """The whole way: read, compressed or kept, metadata chosen, written; without the networks."""
    import vizcomp

    options: dict[str, Any] = {
        "metadata": dice.choice(("none", "essential", "all")),
        "quality": dice.choice((5, 50, 95)),
    }
    if dice.random() < 0.3:
        options["min_saving"] = (
            0.99  # so it is kept, and its metadata are taken out of the file itself
        )
    if dice.random() < 0.1:
        options["max_side"] = 24
    if dice.random() < 0.05 and data[:2] == b"\xff\xd8":
        options = {"lossless": True}
    vizcomp.compress(data, guide="uniform", max_pixels=2_000_000, **options)
    return "read"


# --- maps of depth --------------------------------------------------------------------------------


def maps() -> list[bytes]:
    """A map in each form that numbers come in, with its suffix before it."""
    import numpy as np

    numbers = np.arange(48, dtype=np.float32).reshape(6, 8)
    files = []
    for dtype in ("<f4", ">f8", "u1", "<u2", "?"):
        out = io.BytesIO()
        np.save(out, numbers.astype(dtype))
        files.append(b".npy:" + out.getvalue())
        for save in (np.savez, np.savez_compressed):
            out = io.BytesIO()
            save(out, depth=numbers.astype(dtype), other=numbers)
            files.append(b".npz:" + out.getvalue())
    files.append(b".pfm:Pf\n8 6\n-1.0\n" + numbers.tobytes())
    with contextlib.suppress(ImportError):
        import OpenEXR

        for packing in (OpenEXR.ZIP_COMPRESSION, OpenEXR.PIZ_COMPRESSION, OpenEXR.NO_COMPRESSION):
            with tempfile.TemporaryDirectory() as folder:
                path = str(Path(folder) / "a.exr")
                head = {"compression": packing, "type": OpenEXR.scanlineimage}
                with OpenEXR.File(head, {"Z": numbers}) as made:
                    made.write(path)
                files.append(b".exr:" + Path(path).read_bytes())
    return files


def make_map(files: list[bytes], dice: random.Random) -> bytes:
    suffix, _, data = dice.choice(files).partition(b":")
    if suffix == b".npy":
        data = (
            archives.npy(data, dice) if dice.random() < 0.7 else containers.stir_bytes(data, dice)
        )
    elif suffix == b".npz":
        data = archives.stir_zip(data, dice, archives.npy)
    elif suffix == b".pfm":
        data = archives.stir_lines(data[:16], dice) + data[16:]
    else:
        data = (
            containers.stir_bytes(data[:400], dice) + data[400:]
            if dice.random() < 0.8
            else containers.stir_bytes(data, dice)
        )
    return suffix + b":" + data


def read_map(data: bytes, dice: random.Random) -> str:
    from vizcomp.depth.maps import read_depth_map

    suffix, _, data = data.partition(b":")
    with place("map" + suffix.decode(), data) as path:
        read_depth_map(path, max_pixels=1_000_000)
    return "read"


# --- model files ----------------------------------------------------------------------------------


def make_onnx(files: list[bytes], dice: random.Random) -> bytes:
    data = dice.choice(files)
    for _ in range(dice.choice((1, 1, 2, 3))):
        with contextlib.suppress(ValueError, IndexError):
            data = archives.stir_message(data, dice)
    return data


def state_dicts() -> list[bytes]:
    """State dicts as torch.save writes them, in both forms."""
    import torch

    values = {
        "a.weight": torch.arange(12.0).reshape(3, 4),
        "a.bias": torch.zeros(3, dtype=torch.float16),
    }
    files = []
    for kept in (values, {"state_dict": values, "epoch": 3}):
        for new in (True, False):
            out = io.BytesIO()
            torch.save(kept, out, _use_new_zipfile_serialization=new)
            files.append(out.getvalue())
    return files


def make_state_dict(files: list[bytes], dice: random.Random) -> bytes:
    data = dice.choice(files)
    return (
        archives.stir_zip(data, dice, containers.stir_bytes)
        if data[:2] == b"PK"
        else containers.stir_bytes(data, dice)
    )


def read_states(data: bytes, dice: random.Random) -> str:
    from vizcomp.weights.state_dict import read_state_dict

    with place("a.pth", data) as path:
        read_state_dict(path, "try")
    return "read"


def keras_files() -> list[bytes]:
    """Keras files as h5py writes them, with attributes of names that are cut into several."""
    import h5py
    import numpy as np

    files = []
    for packed in (None, "gzip"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "a.h5"
            with h5py.File(path, "w") as file:
                file.attrs["model_config"] = json.dumps(
                    {"class_name": "Model", "config": {"layers": []}}
                )
                group = file.create_group("model_weights")
                group.attrs["layer_names"] = [b"conv", b"norm"]
                for name in ("conv", "norm"):
                    inner = group.create_group(name)
                    inner.attrs["weight_names"] = [f"{name}/kernel:0".encode()]
                    inner.create_dataset(
                        f"{name}/kernel:0", data=np.ones((4, 5), np.float32), compression=packed
                    )
            files.append(path.read_bytes())
    return files


def make_keras(files: list[bytes], dice: random.Random) -> bytes:
    return archives.stir_hdf5(dice.choice(files), dice)  # type: ignore[no-any-return]


def read_hdf5(data: bytes, dice: random.Random) -> str:
    from vizcomp.depth.hdf5 import read_keras

    with place("a.h5", data) as path:
        read_keras(path)
    return "read"


# --- archives -------------------------------------------------------------------------------------


def tars() -> list[bytes]:
    """Archives with photos, labels, long names and POSIX records, in the three dialects.

    And one of class folders.
    """
    jpeg = photos("JPEG")[0]
    files = []
    for dialect in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w", format=dialect) as tar:
            for name, body in (
                ("a/0001.jpg", jpeg),
                ("a/0001.cls", b"3"),
                ("b/" + "0" * 90 + "2.png", jpeg),
                ("b/é0003.jpg", jpeg),
            ):
                about = tarfile.TarInfo(name)
                about.size = len(body)
                tar.addfile(about, io.BytesIO(body))
            link = tarfile.TarInfo("a/link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "../../etc/passwd"
            tar.addfile(link)
        files.append(out.getvalue())
    return files


def make_tar(files: list[bytes], dice: random.Random) -> bytes:
    return archives.stir_tar(dice.choice(files), dice)  # type: ignore[no-any-return]


def write_again(path: Path) -> None:
    """A shard with each of its photos replaced, or as it was where that cannot be."""
    from vizcomp.shards.open import open_shard
    from vizcomp.shards.shard import Replaced

    shard = open_shard(path, path.name)
    try:
        writer = shard.writer(io.BytesIO())
        for number, member in enumerate(shard.members()):
            writer.put(
                None if member.fixed or number % 3 == 2 else Replaced(b"x" * (number % 700), ".jpg")
            )
        writer.close()
    finally:
        shard.close()


def read_tar(data: bytes, dice: random.Random) -> str:
    from vizcomp.datasets.read import read_labelled

    with place("a.tar", data) as path:
        if dice.random() < 0.5:
            read_labelled(path, part="all")
        else:
            write_again(path)
    return "read"


def parquets() -> list[bytes]:
    """Tables of photos with labels as `datasets` writes them, packed in several ways."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    jpeg = photos("JPEG")[0]
    about = {
        b"huggingface": json.dumps(
            {
                "info": {
                    "features": {
                        "image": {"_type": "Image"},
                        "label": {"_type": "ClassLabel", "names": ["a", "b"]},
                    }
                }
            }
        )
    }
    table = pa.table(
        {
            "image": [{"bytes": jpeg, "path": f"{i}.png"} for i in range(6)],
            "label": [0, 1] * 3,
            "raw": [jpeg] * 6,
        }
    )
    files = []
    for packing in ("NONE", "SNAPPY", "ZSTD", "GZIP"):
        out = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata(about), out, compression=packing, row_group_size=4
        )
        files.append(out.getvalue())
    return files


def make_parquet(files: list[bytes], dice: random.Random) -> bytes:
    return archives.stir_parquet(dice.choice(files), dice)  # type: ignore[no-any-return]


def read_parquet(data: bytes, dice: random.Random) -> str:
    from vizcomp.datasets.read import read_labelled

    with place("a.parquet", data) as path:
        if dice.random() < 0.5:
            read_labelled(path, part="all")
        else:
            write_again(path)
    return "read"
