"""What `bind.cpp` defines. Use it through `compiled.py`."""

from typing import Any

from aria_sampling._arrays import AnyArray, FloatArray, IntArray

def stream_key(seed: int, stream: int, round: int) -> int: ...
def uniforms(key: int, out: FloatArray, /) -> None: ...
def exp(x: FloatArray, out: FloatArray, /) -> None: ...
def log(x: FloatArray, out: FloatArray, /) -> None: ...
def positions(seed: int, regions: IntArray, nth: IntArray, sizes: IntArray, out: IntArray, /) -> None: ...
def weigh_all(
    score: FloatArray, w: FloatArray, warm: FloatArray, frozen: FloatArray, base: FloatArray, shift: float, /
) -> None: ...
def weigh(
    score: FloatArray,
    w: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    base: FloatArray,
    shift: float,
    regions: IntArray,
    scores: FloatArray,
    /,
) -> None: ...
def block_sums(padded: FloatArray, sums: FloatArray, /) -> None: ...
def probabilities(
    q: FloatArray,
    q_sums: FloatArray,
    x: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    cold: float,
    exploration: float,
    p: FloatArray,
    /,
) -> None: ...
def water(
    w: FloatArray,
    cold: float,
    s: FloatArray,
    scale: float,
    guess: float,
    x: FloatArray,
    sums: FloatArray,
    /,
) -> float: ...
def link(held: IntArray, visits: IntArray, last: IntArray, next: AnyArray, prev: AnyArray, /) -> None: ...
def draw(
    seed: int,
    round: int,
    gap: int,
    chosen: IntArray,
    last_held: int,
    offsets: IntArray,
    q: FloatArray,
    q_sums: FloatArray,
    x: FloatArray,
    warm: FloatArray,
    frozen: FloatArray,
    cold: float,
    exploration: float,
    visits: IntArray,
    last: IntArray,
    next: AnyArray,
    prev: AnyArray,
    clock: IntArray,
    ints: IntArray,
    reals: FloatArray,
    /,
) -> int: ...
def aggregate(regions: IntArray, losses: FloatArray, visited: IntArray, sums: FloatArray, /) -> tuple[int, int]: ...
def variation(count: FloatArray, mean: FloatArray, m2: FloatArray, before: FloatArray, cv2: FloatArray, /) -> None: ...
def ema_update(
    count: FloatArray, mean: FloatArray, clock: float, rate: float, per_visit: bool, rows: FloatArray, /
) -> None: ...
def bank_update(
    rows: FloatArray,
    read: FloatArray,
    count: FloatArray,
    mean: FloatArray,
    m2: FloatArray,
    cv2: FloatArray,
    clock: float,
    decay: FloatArray,
    tanh: FloatArray,
    discount: float,
    clip: float,
    new_rows: FloatArray,
    new_read: FloatArray,
    new_cv2: FloatArray,
    /,
) -> None: ...
def learn_ema(
    regions: IntArray,
    losses: FloatArray,
    rows: FloatArray,
    cv2: FloatArray,
    clock: float,
    rate: float,
    per_visit: bool,
    exponent: float,
    visited: IntArray,
    reals: FloatArray,
    belief: FloatArray,
    new_rows: FloatArray,
    new_cv2: FloatArray,
    /,
) -> tuple[int, int, bool, float, float]: ...
def learn_bank(
    regions: IntArray,
    losses: FloatArray,
    rows: FloatArray,
    read: FloatArray,
    cv2: FloatArray,
    clock: float,
    decay: FloatArray,
    tanh: FloatArray,
    discount: float,
    clip: float,
    exponent: float,
    visited: IntArray,
    reals: FloatArray,
    belief: FloatArray,
    new_rows: FloatArray,
    new_read: FloatArray,
    new_cv2: FloatArray,
    /,
) -> tuple[int, int, bool, float, float]: ...
def read_out(mean: FloatArray, count: FloatArray, age: FloatArray, cv2: FloatArray, out: FloatArray, /) -> None: ...
def profile_update(
    bins: IntArray,
    losses: FloatArray,
    weights: FloatArray,
    log_keep: float,
    total: FloatArray,
    weight: FloatArray,
    /,
) -> None: ...
def usable(mean: FloatArray, error: FloatArray, count: FloatArray, /) -> bool: ...
def borrowed(regions: IntArray, news: FloatArray, belief: FloatArray, sums: FloatArray, /) -> float: ...
def sum_beliefs(belief: FloatArray, sums: FloatArray, /) -> None: ...
def replace(pairs: list[tuple[Any, Any]], /) -> None: ...
def store(
    regions: IntArray,
    rows: list[tuple[Any, Any]],
    whole: list[tuple[Any, Any]],
    news: FloatArray,
    belief: FloatArray,
    belief_sums: FloatArray,
    drawn: IntArray,
    visits: IntArray,
    last: IntArray,
    counters: IntArray,
    dropped: int,
    forced: int,
    drawn_rows: int,
    data_rows: int,
    scalars: FloatArray,
    recent: float,
    size: float,
    level: float,
    /,
) -> None: ...
