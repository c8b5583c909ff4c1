"""The blocks of docs/python.md, one after the other."""

from __future__ import annotations

import re
import shutil
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(
    r"^```python\n(.*?)^```$",
    (ROOT / "docs" / "python.md").read_text("utf-8"),
    re.MULTILINE | re.DOTALL,
)


class Sample(dict[str, Any]):
    """A sample of FiftyOne, as far as the page uses it."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.filepath = path


class Samples(list[Sample]):
    def iter_samples(self, *, autosave: bool) -> Iterator[Sample]:
        assert autosave
        return iter(self)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of other packages: files that they leave open
def test_the_page_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="datasets is not installed")
    (tmp_path / "samples").mkdir()
    for name in ("coffee", "astronaut"):
        found = next(iter(sorted((ROOT / "samples").glob(f"{name}.*"))))
        from PIL import Image

        Image.open(found).convert("RGB").resize((256, 192)).save(
            tmp_path / "samples" / f"{name}.jpg", quality=95
        )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    shutil.copytree("samples", "street")
    street = Samples(Sample(str(path)) for path in sorted((tmp_path / "street").iterdir()))
    fake = types.ModuleType("fiftyone")
    fake.load_dataset = lambda name: street  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fiftyone", fake)
    space: dict[str, Any] = {"__name__": "page"}
    assert len(BLOCKS) == 8
    for block in BLOCKS:
        exec(compile(block, "docs/python.md", "exec"), space)
    assert space["verified"].verify_state == "verified"
    assert (tmp_path / "stored.parquet").exists()
    assert all(
        Path(sample["small_path"]).exists() and sample["saved_bytes"] > 0 for sample in street
    )
