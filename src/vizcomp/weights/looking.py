"""Networks that look at photos on compiled loops, on processors that have AVX2: our own ONNX files
in about a third of the time that ONNX Runtime takes, and without loading it.

Convolutions, with what is added to them and the ramp behind them, are made by
`native/convolve.c`; what is between them, by NumPy. `opened` gives None for every network that has
something else in it, and for other processors: they are for ONNX Runtime.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from vizcomp import _native
from vizcomp.weights.onnx_read import Node, OnnxFile, Unreadable, read_onnx
from vizcomp.weights.operators import NEWEST, OLDEST, OPERATORS, known, unpacked
from vizcomp.weights.packed import LANES, Convolution, Desk, NotFinite, SeparableBlock

Array = npt.NDArray[Any]
_AFFINE = ("Add", "Sub", "Mul", "Div")
_VIEWS = ("Identity", "Reshape", "Unsqueeze", "Transpose", "Slice")  # what they make may be theirs
_KEPT = 1 << 24  # bytes of a desk that waits for the next photo


class _Step:
    """What makes one value of a run: a function of a desk and of others."""

    def __init__(
        self, makes: str, takes: Sequence[str], does: Callable[..., Array], view: bool = False
    ) -> None:
        self.makes, self.takes, self.does, self.view = makes, tuple(takes), does, view
        self.forgets: tuple[str, ...] = ()  # values that no later step needs


class LookingNetwork:
    """A network, run as a session of ONNX Runtime is.

    Attributes:
        words: the file's metadata.
        inputs: as ONNX Runtime writes their types.

    Raises:
        Unreadable: it has something in it that is not done here.
        NotFinite: a weight is no number.
    """

    def __init__(self, file: OnnxFile) -> None:
        if not OLDEST <= file.opset <= NEWEST:
            raise Unreadable("another version of the operators")
        self.words = file.words
        self._outputs = file.outputs
        self._types = {name: kind for name, (kind, _) in file.inputs.items()}
        self.inputs = {
            name: f"tensor({'float' if kind is np.float32 else np.dtype(kind).name})"
            for name, kind in self._types.items()
            if kind is not None
        }
        constants = dict(file.constants)
        nodes = [node for node in file.nodes if not _folded(node, constants)]
        used = Counter(name for node in nodes for name in node.inputs) + Counter(file.outputs)
        self._steps = _steps(nodes, constants, used, self._types)
        made = {step.makes for step in self._steps} | set(self._types)
        needed = {name for step in self._steps for name in step.takes} | set(self._outputs)
        self._constants = {name: constants[name] for name in needed - made}
        later = set(self._outputs) | set(self._constants)
        for step in reversed(self._steps):
            step.forgets = tuple(set(step.takes) - later)
            later |= set(step.takes)
        viewed = {name for step in self._steps if step.view for name in step.takes}
        self._lasting = viewed | set(self._outputs)
        self._desks: list[Desk] = []

    def run(self, outputs: Sequence[str] | None, feeds: Mapping[str, Array]) -> list[Array]:
        """The values of some outputs, None for all.

        Raises:
            ValueError: an input is missing, or no such array.
        """
        values: dict[str, Array] = dict(self._constants)
        for name, kind in self._types.items():
            if name not in feeds or feeds[name].dtype != kind:
                raise ValueError(f"{name}: an array of {np.dtype(kind).name} is wanted")
            values[name] = feeds[name]
        try:
            desk = self._desks.pop()  # one that no other thread has
        except IndexError:
            desk = Desk()
        try:
            # what is not finite is in the answer then, and the caller says so
            with np.errstate(all="ignore"):
                for step in self._steps:
                    values[step.makes] = step.does(desk, *(values[name] for name in step.takes))
                    for name in step.forgets:
                        value = values.pop(name)
                        if name not in self._lasting:
                            desk.give_back(value)
        except NotFinite:
            return [np.full((1, 1, 1, 1), np.nan, np.float32) for _ in outputs or self._outputs]
        if desk.size <= _KEPT:
            desk.forget()
            self._desks.append(desk)
        return [values[name] for name in outputs or self._outputs]


def opened(data: bytes) -> LookingNetwork | None:
    """The network in an ONNX file, or None where ONNX Runtime has to run it, or to say what is
    wrong with it."""
    if not _native.layers_possible():
        return None
    try:
        return LookingNetwork(read_onnx(data))
    except (Unreadable, NotFinite):
        return None
    # arrays of a damaged file that do not fit together
    except (ValueError, KeyError, IndexError, TypeError, MemoryError):
        return None


def _folded(node: Node, constants: dict[str, Array]) -> bool:
    """Whether a node's value is always the same; it is among the constants then."""
    if node.kind != "Conv" and not known(node, constants):
        raise Unreadable(node.kind)
    if len(node.outputs) != 1:
        raise Unreadable("several outputs")
    given = [name for name in node.inputs if name]
    if node.kind == "Conv" or any(name not in constants for name in given):
        return False
    constants[node.outputs[0]] = unpacked(node, [constants[name] for name in given])
    return True


def _steps(
    nodes: list[Node], constants: dict[str, Array], used: Counter[str], types: dict[str, Any]
) -> list[_Step]:
    """What is done one after the other: chains of nodes whose values nothing else needs as one."""
    makers = {node.outputs[0]: node for node in nodes}
    users = {name: node for node in nodes for name in node.inputs if used[name] == 1}
    done: set[str] = set()
    steps: dict[str, _Step] = {}
    for node in nodes:
        if node.kind != "Conv" or node.outputs[0] in done:
            continue
        block = _separable(node, users, constants)
        if block is not None:
            made, chain = _block_step(block, constants), block
        else:
            made, chain = _conv_step(node, users, makers, constants, types, used)
        done |= {each.outputs[0] for each in chain}
        steps[made.makes] = made
    found = []
    for node in nodes:
        name = node.outputs[0]
        if name in steps:
            found.append(steps[name])
        elif name not in done:
            found.append(_plain(node))
    return found


def _plain(node: Node) -> _Step:
    operator, attributes = OPERATORS[node.kind], node.attributes
    return _Step(
        node.outputs[0],
        [name for name in node.inputs if name],
        lambda _, *given: operator(attributes, *given),
        view=node.kind in _VIEWS,
    )


def _sizes(node: Node, weights: Array) -> tuple[int, int, int, tuple[int, int, int, int]]:
    """Groups, stride, dilation and zeros around of a convolution.

    Raises:
        Unreadable: it is of another kind.
    """
    has = node.attributes
    strides, dilations = has.get("strides", (1, 1)), has.get("dilations", (1, 1))
    pads = has.get("pads", (0, 0, 0, 0))
    if (
        weights.ndim != 4
        or weights.dtype != np.float32
        or 0 in weights.shape
        or max(weights.shape[:2]) > 4096
        or max(weights.shape[2:]) > 16
        or len(set(strides)) != 1
        or len(set(dilations)) != 1
        or not 1 <= strides[0] <= 16
        or not 1 <= dilations[0] <= 16
        or len(pads) != 4
        or not all(0 <= pad <= 256 for pad in pads)
        or has.get("auto_pad", b"NOTSET") != b"NOTSET"
    ):
        raise Unreadable("a convolution of another kind")
    top, left, bottom, right = pads
    return has.get("group", 1), strides[0], dilations[0], (top, left, bottom, right)


def _weights(node: Node, constants: dict[str, Array]) -> tuple[Array, Array]:
    """Of a convolution, with its bias.

    Raises:
        Unreadable: they are not constant.
    """
    if any(name not in constants for name in node.inputs[1:]):
        raise Unreadable("weights that are computed")
    weights = constants[node.inputs[1]]
    bias = constants[node.inputs[2]] if len(node.inputs) > 2 else np.zeros(len(weights), np.float32)
    if bias.shape != (len(weights),):
        raise Unreadable("a bias of another size")
    return weights, bias


def _separable(
    node: Node, users: dict[str, Node], constants: dict[str, Array]
) -> list[Node] | None:
    """The nodes of a separable block that begins with this one, if there is one."""
    chain = [node]
    for kind in ("Conv", "Relu", "Conv", "Add"):
        following = users.get(chain[-1].outputs[0])
        if following is None or following.kind != kind:
            return None
        chain.append(following)
    spread, widen, _, narrow, total = chain
    other = [name for name in total.inputs if name != narrow.outputs[0]]
    if other != [spread.inputs[0]]:
        return None
    taps, wide, back = (_weights(each, constants)[0] for each in (spread, widen, narrow))
    groups, stride, dilation, pads = _sizes(spread, taps)
    plain = all(
        _sizes(each, weights)[:2] == (1, 1)
        and weights.shape[2:] == (1, 1)
        and not any(_sizes(each, weights)[3])
        for each, weights in ((widen, wide), (narrow, back))
    )
    channels, inner = len(taps), len(wide)
    fits = (
        plain
        and groups == channels
        and taps.shape == (channels, 1, 3, 3)
        and stride == 1
        and set(pads) == {dilation}
        and channels % LANES == 0
        and inner % LANES == 0
        and wide.shape[1] == channels
        and back.shape[:2] == (channels, inner)
    )
    return chain if fits else None


def _block_step(chain: list[Node], constants: dict[str, Array]) -> _Step:
    spread, widen, _, narrow, total = chain
    block = SeparableBlock(
        *(_weights(each, constants) for each in (spread, widen, narrow)),
        dilation=_sizes(spread, _weights(spread, constants)[0])[2],
    )
    return _Step(total.outputs[0], [spread.inputs[0]], block)


def _conv_step(
    node: Node,
    users: dict[str, Node],
    makers: dict[str, Node],
    constants: dict[str, Array],
    types: dict[str, Any],
    used: Counter[str],
) -> tuple[_Step, list[Node]]:
    """A convolution with what is added to it and the ramp behind it, and all nodes that it does."""
    weights, bias = _weights(node, constants)
    groups, stride, dilation, pads = _sizes(node, weights)
    if groups != 1:
        raise Unreadable("groups")
    chain, takes, samples = [node], [node.inputs[0]], None
    before = _from_samples(node, makers, constants, types, used)
    if before is not None and weights.shape[1] <= 4:
        chain, takes, samples = [*before[0], node], [before[1]], before[2]
    last, added = node, False
    following = users.get(node.outputs[0])
    if following is not None and following.kind == "Add" and samples is None:
        other = [name for name in following.inputs if name != node.outputs[0]]
        rival = makers.get(other[0]) if len(other) == 1 else None
        # of two convolutions that are added the first has the sum, and waits for the other
        if rival is not None and not _adds_first(rival, node, following):
            last, added = following, True
            takes.append(other[0])
            chain.append(following)
            following = users.get(following.outputs[0])
    relu = following is not None and following.kind == "Relu"
    if relu and following is not None:
        last = following
        chain.append(following)
    does = Convolution(
        weights, bias, stride=stride, dilation=dilation, pads=pads, relu=relu, samples=samples
    )
    return _Step(last.outputs[0], takes, _adding(does) if added else does), chain


def _adds_first(rival: Node, node: Node, total: Node) -> bool:
    return rival.kind == "Conv" and total.inputs[1] == node.outputs[0]


def _adding(does: Convolution) -> Callable[..., Array]:
    def run(desk: Desk, x: Array, added: Array) -> Array:
        if does.fits(x, added):
            return does(desk, x, added)
        # one value for each channel, or the like
        y = does(desk, x, relu=False) + added
        return np.maximum(y, 0) if does.relu else y

    return run


def _from_samples(
    node: Node,
    makers: dict[str, Node],
    constants: dict[str, Array],
    types: dict[str, Any],
    used: Counter[str],
) -> tuple[list[Node], str, tuple[Array, Array]] | None:
    """The nodes that bring a photo's samples to a convolution, the photo's name, and what a level
    means: factor and offset of each channel."""
    chain: list[Node] = []
    name = node.inputs[0]
    while name in makers and used[name] == 1:
        before = makers[name]
        chain.append(before)
        shifts = before.kind in _AFFINE and before.inputs[1] in constants
        if shifts or (before.kind == "Cast" and before.attributes["to"] == 1):
            name = before.inputs[0]
        elif before.kind == "Transpose" and before.attributes["perm"] == (0, 3, 1, 2):
            name = before.inputs[0]
            break
        else:
            return None
    if types.get(name) is not np.uint8 or not chain or chain[-1].kind != "Transpose":
        return None
    ends = np.array([0.0, 255.0]).reshape(2, 1, 1, 1)
    values = np.broadcast_to(ends, (2, _weights(node, constants)[0].shape[1], 1, 1))
    for each in reversed(chain):
        if each.kind in _AFFINE:
            values = OPERATORS[each.kind]({}, values, constants[each.inputs[1]].astype(np.float64))
    if values.shape[2:] != (1, 1) or not np.isfinite(values).all():
        return None
    offset, end = values[:, :, 0, 0]
    factor = (end - offset) / 255
    return (chain, name, (factor, offset)) if (factor > 0).all() else None
