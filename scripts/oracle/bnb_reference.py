"""What the oracles of bitsandbytes share: its own pure torch kernels, and a second writing of two CUDA kernels.

bitsandbytes computes by backends. Its CPU library finds 8-bit codes by a coarse table near zero, which neither its CUDA kernels nor its
pure torch backend do; so the oracles run the latter ("default"), and these functions say in NumPy, operation by operation in f32, what
the CUDA kernels compute. The scripts check one against the other.
"""
import importlib.util
import pathlib

import bitsandbytes
import bitsandbytes._ops as ops
import numpy as np


def default_kernels():
    """The functions of bitsandbytes.backends.default, by the names of the operations they implement."""
    found, register = {}, ops.register_kernel
    ops.register_kernel = lambda name, backend: lambda f: found.setdefault(name.removeprefix("bitsandbytes::"), f)
    try:
        path = pathlib.Path(bitsandbytes.__file__).parent / "backends" / "default" / "ops.py"
        spec = importlib.util.spec_from_file_location("bitsandbytes.backends.default.again", path)
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    finally:
        ops.register_kernel = register
    return found


def search(code, x, lowest):
    """The CUDA kernels' search for the code nearest to each x (dQuantize; quantize_2D with lowest = -1 or 0)."""
    with np.errstate(invalid="ignore"):
        pivot, upper, lower = (np.full(x.shape, v, dtype=np.int64) for v in (127, 255, 0))
        for step in (64, 32, 16, 8, 4, 2, 1):
            above = x > code[pivot]
            lower, upper = np.where(above, pivot, lower), np.where(above, upper, pivot)
            pivot = np.where(above, pivot + step, pivot - step)
        low = np.where(lower == 0, lowest, code[lower]).astype(np.float32)
        half, here = np.float32(0.5), code[pivot]
        up = np.where(x > (code[upper] + here) * half, upper, pivot)
        down = np.where(x < (low + here) * half, lower, pivot)
        return np.where(x > here, up, down).astype(np.uint8)


def blocks(x, size):
    """x cut into rows of a block each, the last one filled up with zeros."""
    full = np.zeros(-(-len(x) // size) * size, dtype=np.float32)
    full[: len(x)] = x
    return full.reshape(-1, size)


def quantize_blockwise(x, code, size):
    """kQuantizeBlockwise<General8bit>: codes and scales."""
    rows = blocks(x, size)
    absmax = np.abs(rows).max(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        scaled = rows * (np.float32(1) / absmax)[:, None]
    return search(code, scaled, code[0]).reshape(-1)[: len(x)], absmax


def adamw8bit(p, g, state, code1, code2, lr, betas, eps, decay, step):
    """kOptimizerStatic8bit2StateBlockwise<ADAM>, with IEEE division where the kernel has a fast one; changes p and state (c1, a1, c2, a2)."""
    f, size = np.float32, 256
    b1, b2, lr = (f(x) for x in (*betas, lr))
    correction1, correction2 = 1 - float(b1) ** step, (1 - float(b2) ** step) ** 0.5
    step_size, eps2 = f(-float(lr) * correction2 / correction1), f(correction2 * float(f(eps)))
    n, fine = len(p), np.isfinite(g)
    g = np.where(fine, g, f(0))
    s1 = np.where(fine, code1[state["c1"]] * np.repeat(state["a1"], size)[:n] * b1 + (f(1) - b1) * g, f(0))
    s2 = np.where(fine, code2[state["c2"]] * np.repeat(state["a2"], size)[:n] * b2 + (f(1) - b2) * g * g, f(0))
    new = p + step_size * (s1 / (np.sqrt(s2) + eps2))
    if decay > 0:
        new = new * (f(1) - lr * f(decay))
    p[:] = np.where(fine, new, p)
    for moment, code, lowest, c, a in ((s1, code1, f(-1), "c1", "a1"), (s2, code2, f(0), "c2", "a2")):
        rows = blocks(moment, size)
        state[a] = np.abs(rows).max(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            state[c] = search(code, rows / state[a][:, None], lowest).reshape(-1)[:n]
    differs = np.signbit(code1[state["c1"]]) != np.signbit(s1)
    state["c1"] = np.where(differs, np.where(s1 > 0, state["c1"] + f(1), state["c1"] - f(1)).astype(np.int64) % 256, state["c1"]).astype(np.uint8)
