"""Bitwise equal results on Intel and AMD: numpy's matrix products, `exp` and `log` in place of torch's.

With a pinned instruction set (`coma_gen.core.seeding`) and one thread, torch's CPU results are bitwise equal
on Intel and AMD except for kernels of MKL, which dispatches by vendor: matrix products, and `exp` and `log`
of whole tensors. numpy's OpenBLAS can be pinned to one kernel set.

`python -m benchmarks.portable` prints digests that show whether a processor computes the same bits, and the
cost relative to MKL.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch import library as torch_ops
from torch.nn import functional

REPLACED = (torch.float32, torch.float64)
"""dtypes computed by numpy; others keep torch's kernels."""


@cache
def replace_kernels() -> Any:
    """Replaces torch's CPU kernels of matrix products, exp and log, once, for the rest of the process.

    Returns:
        The handle of the registration; the kernels are unregistered when its last reference is dropped.
    """
    kernels: dict[str, Callable[..., Tensor]] = {"exp": _exp, "log": _log, "dot": multiply}
    for name, with_sum in (("mm", "addmm"), ("bmm", "baddbmm"), ("mv", "addmv")):
        kernels |= {name: multiply, f"{name}.out": multiply_into}
        kernels |= {with_sum: add_product, f"{with_sum}_": _add_in_place, f"{with_sum}.out": add_product_into}
    replaced = vars(torch_ops)["Library"]("aten", "IMPL")
    for name, kernel in kernels.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch warns about each override
            replaced.impl(name, _for_floats(name, kernel), "CPU", with_keyset=True, allow_override=True)
    return replaced


class Products(NamedTuple):
    """Matrix products and attention; numpy's are called without going through torch's dispatcher."""

    multiply: Callable[..., Tensor]
    multiply_into: Callable[..., Tensor]
    bind: Callable[..., Callable[[Tensor], object]]
    attend: Callable[..., Tensor]


def products_of(like: Tensor) -> Products:
    """Returns the products for tensors like `like`: numpy's if `replace_kernels` was called, else torch's."""
    if like.device.type == "cpu" and like.dtype in REPLACED and replace_kernels.cache_info().currsize:
        return Products(multiply, multiply_into, _bind_numpy, attend)
    return Products(torch.matmul, torch.matmul, _bind_torch, functional.scaled_dot_product_attention)


def _bind_torch(b: Tensor, out: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], object]:
    """Returns a function of a that writes a @ b (+ bias) to `out`."""
    if bias is None:
        return lambda a: torch.matmul(a, b, out=out)
    return lambda a: torch.addmm(bias, a, b, out=out)


def _bind_numpy(b: Tensor, out: Tensor, bias: Tensor | None = None) -> Callable[[Tensor], object]:
    """`_bind_torch` for numpy; converts the fixed operands once, which takes as long as a small product."""
    right, result = b.detach().numpy(), out.detach().numpy()
    added = None if bias is None else bias.detach().numpy()

    def multiply_by(a: Tensor) -> None:
        np.matmul(a.numpy(), right, out=result)
        if added is not None:
            np.add(result, added, out=result)

    return multiply_by


def _for_floats(name: str, kernel: Callable[..., Tensor]) -> Callable[..., Any]:
    """Wraps a kernel so that dtypes other than `REPLACED` use torch's own kernel."""
    original = torch_ops.get_kernel(f"aten::{name}", "CPU")

    def choose(keys: Any, first: Tensor, *arguments: Any, **options: Any) -> Any:
        if first.dtype in REPLACED:
            return kernel(first, *arguments, **options)
        return original.call_boxed(keys, first, *arguments, **options)

    return choose


def _numbers(x: Tensor) -> Any:
    """Returns a tensor as a numpy array that BLAS can read without a copy: contiguous rows or columns."""
    numbers = (x.detach() if x.requires_grad else x).numpy()
    if numbers.ndim > 1 and not numbers.flags.forc:
        (*_, rows, columns), (*_, down, across) = numbers.shape, numbers.strides
        size = numbers.itemsize
        if not ((across == size and down >= size * columns) or (down == size and across >= size * rows)):
            numbers = np.ascontiguousarray(numbers)
    return numbers


def multiply(a: Tensor, b: Tensor) -> Tensor:
    """Returns the product of matrices (..., M, K) and (..., K, N), or of vectors."""
    return torch.from_numpy(np.asarray(np.matmul(_numbers(a), _numbers(b))))


def multiply_into(a: Tensor, b: Tensor, *, out: Tensor) -> Tensor:
    """Writes the product of two matrices to `out`."""
    if out.dim() == a.dim() and a.shape[-2] == out.shape[-2] and b.shape[-1] == out.shape[-1]:
        np.matmul(_numbers(a), _numbers(b), out=(out.detach() if out.requires_grad else out).numpy())
        return out
    return _copy_into(multiply(a, b), out)


def add_product(c: Tensor, a: Tensor, b: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """Returns beta * c + alpha * (a @ b)."""
    product = multiply(a, b)
    if alpha != 1:
        product.mul_(alpha)
    return product.add_(c, alpha=beta) if beta else product


def add_product_into(
    c: Tensor, a: Tensor, b: Tensor, *, out: Tensor, beta: float = 1, alpha: float = 1
) -> Tensor:
    """Writes beta * c + alpha * (a @ b) to `out`."""
    if alpha == 1 == beta and out.data_ptr() != c.data_ptr():
        return multiply_into(a, b, out=out).add_(c)
    return _copy_into(add_product(c, a, b, beta=beta, alpha=alpha), out)


def attend(
    queries: Tensor, keys: Tensor, values: Tensor, *, attn_mask: Tensor | None, scale: float
) -> Tensor:
    """Equivalent of torch's scaled_dot_product_attention for `REPLACED` dtypes.

    Args:
        queries: (..., T, d).
        keys: (..., N, d).
        values: (..., N, d).
        attn_mask: Boolean mask, False for masked keys, or a float tensor added to the logits.
        scale: Factor of the logits.

    Returns:
        (..., T, d).
    """
    logits = torch.from_numpy(np.matmul(queries.numpy(), keys.numpy().swapaxes(-1, -2))).mul_(scale)
    if attn_mask is not None:
        if attn_mask.dtype == torch.bool:
            logits.masked_fill_(~attn_mask, float("-inf"))
        else:
            logits.add_(attn_mask)
    return torch.from_numpy(np.matmul(logits.softmax(-1).numpy(), values.numpy()))


def _exp(x: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(np.exp(x.detach().numpy())))


def _log(x: Tensor) -> Tensor:
    with np.errstate(divide="ignore", invalid="ignore"):  # torch's log(0) is -inf without a warning
        return torch.from_numpy(np.asarray(np.log(x.detach().numpy())))


def _add_in_place(c: Tensor, a: Tensor, b: Tensor, **factors: float) -> Tensor:
    return c.copy_(add_product(c, a, b, **factors))


def _copy_into(value: Tensor, out: Tensor) -> Tensor:
    if out.shape != value.shape:
        out.resize_(value.shape)
    return out.copy_(value)
