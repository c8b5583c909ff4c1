"""Programs of torch.export, read as data and run operator by operator."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from vizcomp.errors import ModelError
from vizcomp.nets import exported


class Branches(nn.Module):
    """Operators with several results, sizes as numbers, a buffer, and outputs by name."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.5)
        self.last = nn.Linear(16, 5)
        self.register_buffer("gain", torch.full((3, 1, 1), 2.0))

    def forward(self, image: torch.Tensor) -> dict[str, Any]:
        x = nn.functional.adaptive_avg_pool2d(
            torch.relu(self.norm(self.conv(image * self.gain))), 2
        )
        x = self.drop(x.reshape(image.shape[0], -1))
        one, other = x.chunk(2, 1)
        most, where = x.max(1)
        return {"logits": self.last(x), "more": (one + other, most), "where": where}


@pytest.fixture(scope="module")
def module() -> nn.Module:
    torch.manual_seed(0)
    return Branches().eval()


def saved(module: nn.Module, path: Path, *shape: int, free: bool = True) -> Path:
    batch = torch.export.Dim("batch", min=1)
    dynamic = ({0: batch},) if free else None
    program = torch.export.export(module, (torch.zeros(*shape),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def program(module: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(module, tmp_path_factory.mktemp("exported") / "own.pt2", 2, 3, 8, 8)


def changed(path: Path, target: Path, **edits: Callable[[Any], Any]) -> Path:
    """A program with some of its JSON parts edited; a part's name has _ for what is no letter."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            data = old.read(info)
            for name, edit in edits.items():
                if "".join(c if c.isalnum() else "_" for c in info.filename).endswith(name):
                    words = json.loads(data)
                    data = json.dumps(edit(words) or words).encode()
            new.writestr(info.filename, data)
    return target


def test_it_answers_as_torch_does(module: nn.Module, program: Path) -> None:
    own = exported.load(program)
    assert own.outputs == ("logits", "more.0", "more.1", "where")
    (slot,) = own.inputs
    assert (slot.name, slot.shape, slot.dtype) == ("image", (0, 3, 8, 8), torch.float32)
    for count in (1, 3):
        images = torch.from_numpy(np.random.default_rng(count).random((count, 3, 8, 8), np.float32))
        wanted = module(images)
        found = own(images)
        assert torch.equal(found["logits"], wanted["logits"])
        assert torch.equal(found["more.0"], wanted["more"][0])
        assert torch.equal(found["more.1"], wanted["more"][1])
        assert torch.equal(found["where"], wanted["where"])


def test_gradients_go_through(module: nn.Module, program: Path) -> None:
    images = torch.rand(1, 3, 8, 8, requires_grad=True)
    (wanted,) = torch.autograd.grad(module(images)["logits"].sum(), images)
    (found,) = torch.autograd.grad(exported.load(program)(images)["logits"].sum(), images)
    assert torch.equal(found, wanted)


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return open, ("/dev/null/it-ran",)


def pickled() -> bytes:
    out = io.BytesIO()
    torch.save(Evil(), out)
    return out.getvalue()


def test_nothing_of_a_file_is_run(program: Path, tmp_path: Path) -> None:
    """What torch.export.load unpickles or evaluates is not looked at here."""
    ran = tmp_path / "ran"
    code = f"open({str(ran)!r}, 'w')"

    def hostile(words: dict[str, Any]) -> None:
        words["guards_code"] = [code]
        graph = words["graph_module"]["graph"]
        for one in graph["tensor_values"].values():
            for side in one["sizes"]:
                if "as_expr" in side:
                    side["as_expr"]["expr_str"] = code
        for node in graph["nodes"]:
            node["metadata"] = {"stack_trace": code, "nn_module_stack": code}

    path = changed(program, tmp_path / "hostile.pt2", model_json=hostile)
    with zipfile.ZipFile(path, "a") as archive:
        sample = next(n for n in archive.namelist() if n.endswith("sample_inputs/model.pt"))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr(sample, pickled())
    own = exported.load(path)
    assert own(torch.zeros(1, 3, 8, 8))["logits"].shape == (1, 5)
    assert not ran.exists()


def with_target(target: str) -> Callable[[Any], None]:
    def edit(words: Any) -> None:
        words["graph_module"]["graph"]["nodes"][0]["target"] = target

    return edit


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.eval",
        "torch.load",
        "torch.ops.aten.from_file.default",
        "torch.ops.aten.save.default",
        "torch.ops.aten.__class__.mro",
        "torch.ops.aten.add.__call__",
        "torch.ops.aten.nosuch.default",
        "torch.ops.higher_order.cond",
        "torch.ops.load_library.x.y",
        "torch.ops.own.add.default",
        "",
    ],
)
def test_what_is_no_operator_is_refused(program: Path, tmp_path: Path, target: str) -> None:
    path = changed(program, tmp_path / "own.pt2", model_json=with_target(target))
    with pytest.raises(ModelError, match="which is not run here") as caught:
        exported.load(path)
    assert "\n" not in caught.value.message


def test_pickled_weights_and_compiled_code_are_refused(program: Path, tmp_path: Path) -> None:
    def as_pickle(words: Any) -> None:
        next(iter(words["config"].values()))["use_pickle"] = True

    path = changed(program, tmp_path / "pickled.pt2", weights_config_json=as_pickle)
    with pytest.raises(ModelError, match="its weights are pickled: reading them could run code"):
        exported.load(path)
    path = changed(program, tmp_path / "compiled.pt2")
    with zipfile.ZipFile(path, "a") as archive:
        top = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{top}/data/aotinductor/model/x.so", b"\x7fELF")
    with pytest.raises(ModelError, match="compiled code"):
        exported.load(path)


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


@pytest.mark.parametrize(
    "data",
    [b"", b"no archive", b"PK\x03\x04" + bytes(50), pickle.dumps([1]), cut],
    ids=["empty", "text", "head", "pickle", "cut"],
)
def test_what_is_no_program_is_one_line(
    program: Path, tmp_path: Path, data: bytes | Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "own.pt2"
    path.write_bytes(data(program.read_bytes()) if callable(data) else data)
    with pytest.raises(ModelError, match="cannot be read as a program") as caught:
        exported.load(path)
    assert "\n" not in caught.value.message


def test_other_archives_and_missing_files(tmp_path: Path, module: nn.Module) -> None:
    with pytest.raises(ModelError, match="is not there"):
        exported.load(tmp_path / "none.pt2")
    torch.save(module.state_dict(), tmp_path / "state.pt2")
    with pytest.raises(ModelError, match="no program of torch"):
        exported.load(tmp_path / "state.pt2")
    with zipfile.ZipFile(tmp_path / "old.pt2", "w") as archive:
        archive.writestr("serialized_exported_program.json", "{}")
    with pytest.raises(ModelError, match=r"written before torch 2\.8"):
        exported.load(tmp_path / "old.pt2")


EDITS: dict[str, Callable[[Any], Any]] = {
    "no graph": lambda words: words.pop("graph_module"),
    "a list": lambda words: [words],
    "a node without target": lambda words: words["graph_module"]["graph"]["nodes"][0].pop("target"),
    "a value that nobody gives": lambda words: words["graph_module"]["graph"]["nodes"].pop(2),
    "an unknown weight": lambda words: words["graph_module"]["signature"]["input_specs"][0][
        "parameter"
    ].update(parameter_name="x"),
    "inputs that are none": lambda words: words["graph_module"]["signature"].update(input_specs=7),
    "an odd argument": lambda words: words["graph_module"]["graph"]["nodes"][1]["inputs"][0].update(
        arg={"as_graph": {}}
    ),
    "deep": lambda words: json.loads("[" * 500 + "]" * 500),
}


@pytest.mark.parametrize("what", EDITS)
def test_a_damaged_graph_is_one_line(program: Path, tmp_path: Path, what: str) -> None:
    path = changed(program, tmp_path / "own.pt2", model_json=lambda w: EDITS[what](w) and None)
    if what in ("a list", "deep"):
        path = changed(program, path, model_json=EDITS[what])
    with pytest.raises((ModelError, KeyError)) as caught:
        exported.load(path)(torch.zeros(1, 3, 8, 8))
    assert what == "a value that nobody gives" or isinstance(caught.value, ModelError)


WEIGHTS: dict[str, Callable[[Any], Any]] = {
    "larger than its part": lambda meta: meta["sizes"].__setitem__(0, {"as_int": 1 << 40}),
    "of negative size": lambda meta: meta["sizes"].__setitem__(0, {"as_int": -4}),
    "beyond its part": lambda meta: meta.update(storage_offset={"as_int": 1 << 30}),
    "of an unknown kind": lambda meta: meta.update(dtype=99),
    "of no size": lambda meta: meta.update(sizes=None),
}


@pytest.mark.parametrize("what", WEIGHTS)
def test_weights_that_lie_are_one_line(program: Path, tmp_path: Path, what: str) -> None:
    def edit(words: Any) -> None:
        WEIGHTS[what](next(iter(words["config"].values()))["tensor_meta"])

    path = changed(program, tmp_path / "own.pt2", weights_config_json=edit)
    with pytest.raises(ModelError) as caught:
        exported.load(path)
    assert "\n" not in caught.value.message


def test_a_network_in_training_is_refused(tmp_path: Path) -> None:
    drops = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(12, 3)).train()
    norms = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten()).train()
    for module in (drops, norms):
        path = saved(module, tmp_path / "own.pt2", 2, 3, 2, 2, free=False)
        with pytest.raises(ModelError, match="a network in training") as caught:
            exported.load(path)
        assert "module.eval()" in caught.value.hint
