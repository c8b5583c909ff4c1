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
