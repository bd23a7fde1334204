"""Random numbers as pure functions of a key, and a root for update rules."""

import math
from typing import Any

import torch
from torch import Tensor

from metalearn._brief import brief
from metalearn._checks import (
    as_device,
    check_choice,
    check_count,
    check_generator,
    invalid,
    mistyped,
)

_WORD = 0xFFFFFFFF
_DIGITS = {torch.float64: 32, torch.float32: 23, torch.float16: 10, torch.bfloat16: 7}
"""Random bits by dtype: as many as it can hold next to 0.5 without rounding up to 1."""


def _mix(x: Tensor) -> Tensor:
    # 32-bit words held in int64 and factors below 2**31: no product overflows, so every backend
    # agrees to the bit.
    x = (x ^ (x >> 16)) * 0x7FEB352D & _WORD
    x = (x ^ (x >> 15)) * 0x2C1B3C6D & _WORD
    return x ^ (x >> 13)


def uniform(
    key: Tensor, shape: tuple[int, ...], stream: int = 0, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw numbers from the open interval (0, 1) as a pure function of a key.

    The numbers are the same to the bit in eager mode, under `vmap`, in a loop and compiled, which
    `torch.rand` inside an update rule is not.

    Args:
        key: int64 in [0, 2**62), a scalar, or anything that broadcasts against `shape`.
        shape: Shape of the result.
        stream: Selects one of many independent sequences of the same key, at least 0.
        dtype: Floating dtype of the result, `torch.get_default_dtype()` if not given.

    Returns:
        Tensor of `shape`, or what it and the key's shape broadcast to, with as many random bits as
        `dtype` has digits, at most 32.

    Raises:
        TypeError: If the key is no int64 tensor, or the shape no tuple of ints.
        ValueError: If `stream` or a size is negative, `dtype` is no floating one, or key and shape
            do not broadcast.

    References:
        The mixing follows C. Wellons, "Prospecting for hash functions", 2018.

    >>> key = torch.tensor(7)
    >>> bool((uniform(key, (3,)) == uniform(key, (3,))).all())
    True
    """
    dtype = torch.get_default_dtype() if dtype is None else dtype
    _check_key(key)
    _check_shape(shape, key)
    check_count("stream", stream, minimum=0)
    check_choice("dtype", dtype, _DIGITS)
    counter = torch.arange(torch.Size(shape).numel(), dtype=torch.int64, device=key.device).reshape(
        shape
    )
    word = _mix(counter + 0x9E3779B1 & _WORD)
    for part in (stream & _WORD, key & _WORD, key >> 32):
        word = _mix(word ^ part)
    digits = _DIGITS[dtype]
    return ((_mix(word) >> (32 - digits)).to(dtype) + 0.5) / 2**digits


def normal(
    key: Tensor, shape: tuple[int, ...], stream: int = 0, *, dtype: torch.dtype | None = None
) -> Tensor:
    """Draw standard normal numbers as a pure function of a key, as `uniform` does.

    >>> normal(torch.tensor(7), (10_000,)).std().round(decimals=1)
    tensor(1.)
    """
    return math.sqrt(2) * torch.erfinv(2 * uniform(key, shape, stream, dtype=dtype) - 1)


def derive_key(key: Tensor, index: int = 0) -> Tensor:
    """Return another key as a pure function of a key, for a part that draws its own numbers.

    Args:
        key: int64 in [0, 2**62), of any shape.
        index: Selects one of many, at least 0.

    Raises:
        TypeError: If the key is no int64 tensor, or `index` no int.
        ValueError: If `index` is negative.

    >>> bool(derive_key(torch.tensor(7)) == derive_key(torch.tensor(7), 1))
    False
    """
    _check_key(key)
    check_count("index", index, minimum=0)
    low = _mix(_mix(_mix(key & _WORD) ^ (key >> 32)) ^ (index & _WORD))
    return (_mix(low ^ 0x5BD1E995) >> 2 << 32) | low


def draw_keys(
    num_tasks: int,
    *,
    generator: torch.Generator | None = None,
    device: torch.device | str | None = None,
) -> Tensor:
    """Draw one random key a task, `[num_tasks]` int64, for all that is random in a meta-step.

    Raises:
        TypeError: If an argument is of the wrong kind.
        ValueError: If `num_tasks` is negative, or there is no such device.
    """
    check_count("num_tasks", num_tasks, minimum=0, fix="Write draw_keys(25), say.")
    check_generator(generator)
    device = None if device is None else as_device(device)
    source = generator.device if generator is not None else device
    return torch.randint(2**62, (num_tasks,), generator=generator, device=source).to(
        device or source
    )


def safe_sqrt(x: Tensor) -> Tensor:
    """Return the square root, with a derivative of zero instead of infinity where `x` is zero.

    An update rule that divides by a root needs it: dead units have gradients of zero, and in a
    second derivative zero times infinity is NaN.

    >>> torch.func.grad(lambda x: safe_sqrt(x).sum())(torch.tensor([0.0, 4.0]))
    tensor([0.0000, 0.2500])
    """
    if not isinstance(x, Tensor) or x.is_complex():
        raise mistyped(
            "x", "be a tensor of real numbers", brief(x), "Write torch.tensor(4.0), say."
        )
    positive = x > 0
    return torch.where(positive, torch.where(positive, x, 1.0).sqrt(), 0.0)


def _check_key(key: Any) -> None:
    if not isinstance(key, Tensor) or key.dtype != torch.int64:
        fix = "Write torch.tensor(7), or functional.draw_keys(num_tasks)."
        raise mistyped("key", "be an int64 tensor", brief(key), fix)


def _check_shape(shape: Any, key: Tensor) -> None:
    sizes: Any = shape if isinstance(shape, tuple | list) else [None]
    if not all(
        isinstance(size, int | torch.SymInt) and not isinstance(size, bool) for size in sizes
    ):
        raise mistyped("shape", "be a tuple of ints", brief(shape), "Write (3,), say.")
    pairs = zip(reversed(key.shape), reversed(sizes), strict=False)
    if any(size < 0 for size in sizes) or any(a != b and 1 not in (a, b) for a, b in pairs):
        got = f"{tuple(shape)} for a key of shape {tuple(key.shape)}"
        raise invalid("shape", "be of sizes from 0 that broadcast against the key's", got)
