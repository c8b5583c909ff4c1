from typing import Any

# Arrays are passed as objects of the buffer protocol: C-contiguous, of the dtype that vizcomp.jpeg
# or vzc/coding.py names.

def huffman_table(counts: bytes, values: bytes) -> object | None: ...
def decode_scan(
    data: Any,
    offset: int,
    components: tuple[tuple[Any, ...], ...],
    progressive: int,
    ss: int,
    se: int,
    ah: int,
    al: int,
    restart: int,
    mcu_rows: int,
    mcu_cols: int,
) -> tuple[int, int]: ...
def encode_scans(
    components: tuple[tuple[Any, ...], ...],
    progressive: int,
    optimise: int,
    mcu_rows: int,
    mcu_cols: int,
) -> tuple[int, bytes | None]: ...
def standard_lengths() -> bytes: ...
def forward(
    pixels: Any, height: int, width: int, channels: int, hx: int, vy: int, planes: tuple[Any, ...]
) -> int: ...
def halve(
    rows: int,
    cols: int,
    down: int,
    across: int,
    out_rows: int,
    out_cols: int,
    blocks: Any,
    unit: Any,
    out: Any,
) -> int: ...
def quantise(
    blocks: int,
    values: Any,
    table: Any,
    dead_zone: Any,
    rate: Any,
    worth: Any,
    lengths: Any,
    exact: Any,
    out: Any,
) -> int: ...
def settle_dc(
    rows: int, cols: int, down: int, across: int, ratio: Any, rate: Any, out: Any
) -> int: ...
def context_model(
    slots: int, sets: int, lengths: Any, references: Any, tables: Any, weights: Any, rates: Any
) -> object: ...
def context_encode(
    model: object,
    images: int,
    first: int,
    last: int,
    height: int,
    width: int,
    bits: Any,
    data: Any,
    sizes: Any,
) -> tuple[int, int]: ...
def context_decode(
    model: object,
    images: int,
    first: int,
    last: int,
    height: int,
    width: int,
    bits: Any,
    data: Any,
    sizes: Any,
) -> tuple[int, int]: ...
def context_cost(
    model: object,
    images: int,
    first: int,
    last: int,
    height: int,
    width: int,
    bits: Any,
    data: Any,
    costs: Any,
) -> tuple[int, int]: ...
def layers_possible() -> bool: ...
def layer_parts(sizes: tuple[int, ...], /) -> int: ...
def layer_run(
    sizes: tuple[int, ...],
    first: int,
    last: int,
    x: Any,
    kernel: Any,
    hidden: Any,
    bias: Any,
    h: Any,
    c: Any,
    new_h: Any,
    new_c: Any,
) -> None: ...
def points(
    places: int, ins: int, outs: int, tanh: int, x: Any, kernel: Any, bias: Any, out: Any
) -> None: ...
def convolve(
    sizes: tuple[int, ...],
    x: Any,
    nothing: Any,
    kernel: Any,
    scale: Any,
    bias: Any,
    added: Any,
    field: Any,
    out: Any,
) -> bool: ...
def separate(
    sizes: tuple[int, ...],
    x: Any,
    taps: Any,
    taps_bias: Any,
    widen: Any,
    widen_scale: Any,
    widen_bias: Any,
    narrow: Any,
    narrow_scale: Any,
    narrow_bias: Any,
    out: Any,
) -> bool: ...
def picture_patches(
    images: int,
    height: int,
    width: int,
    side: int,
    strength: float,
    both: int,
    source: Any,
    image: Any,
    patches: Any,
) -> None: ...
def picture_improve(
    images: int,
    height: int,
    width: int,
    side: int,
    strength: float,
    y: Any,
    image: Any,
    out: Any,
) -> None: ...
