"""FlexAttention's masks and biases against the bands, uncompiled on the CPU; its kernels need a GPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn.attention import flex_attention as library

from coma_gen.model import flex_attention
from coma_gen.model.flex_attention import FlexBand, block_mask
from coma_gen.model.local_attention import local_attention

HEADS, DIM, SCALE = 2, 16, 0.3


@pytest.fixture(autouse=True)
def with_gradients_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The library refuses gradients on a CPU, for lack of a kernel; uncompiled it has no need of one."""
    monkeypatch.setattr(library, "_validate_device", lambda *_: None)


def vectors(*shape: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64).requires_grad_()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("window_sizes,length", [((3, 20), 50), ((1, 130, None), 150), ((7,), 7)])
def test_all_scales_in_one_call_equal_one_band_each(
    window_sizes: tuple[int | None, ...], length: int, with_bias: bool
) -> None:
    scales = len(window_sizes)
    parts = [[vectors(2, HEADS, length, DIM, seed=3 * i + j) for i in range(scales)] for j in range(3)]
    table = vectors(length, scales * HEADS, seed=50) if with_bias else None
    mask = block_mask(window_sizes, num_heads=HEADS, length=length, device=torch.device("cpu"))
    actual = FlexBand(mask, length, SCALE)(*parts, table)
    tables = [None] * scales if table is None else table.split(HEADS, dim=1)
    expected = torch.cat(
        [
            local_attention(q, k, v, window=window, softmax_scale=SCALE, biases=_cut(biases, window))
            for q, k, v, window, biases in zip(*parts, window_sizes, tables, strict=True)
        ],
        dim=2,
    )
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    inputs = [part for group in parts for part in group] + ([] if table is None else [table])
    weight = torch.randn(expected.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    gradients = [torch.autograd.grad((output * weight).sum(), inputs) for output in (actual, expected)]
    for ours, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=1e-11)


def _cut(biases: Tensor | None, window: int | None) -> Tensor | None:
    """The biases of the distances within a window."""
    return biases if biases is None or window is None else biases[: window + 1]


def test_blocks_outside_of_the_band_are_passed_over() -> None:
    mask = block_mask((16, 300, None), num_heads=1, length=1024, device=torch.device("cpu"))
    blocks = mask.kv_num_blocks + (0 if mask.full_kv_num_blocks is None else mask.full_kv_num_blocks)
    assert blocks[0].tolist() == [
        [1, 2, 2, 2, 2, 2, 2, 2],
        [1, 2, 3, 4, 4, 4, 4, 4],
        [1, 2, 3, 4, 5, 6, 7, 8],
    ]


@pytest.mark.parametrize("with_bias", [False, True])
def test_biases_ask_for_fewer_stages_of_the_pipeline(
    with_bias: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the kernel finds room is seen on a GPU alone; that it is asked so, here."""
    asked: list[dict[str, int] | None] = []

    def record(query: Tensor, *_: Tensor, kernel_options: dict[str, int] | None, **__: object) -> Tensor:
        asked.append(kernel_options)
        return query

    monkeypatch.setattr(flex_attention, "flex_attention", record)
    part = [vectors(1, HEADS, 8, DIM, seed=1)]
    mask = block_mask((3,), num_heads=HEADS, length=8, device=torch.device("cpu"))
    FlexBand(mask, 8, SCALE)(part, part, part, vectors(8, HEADS, seed=2) if with_bias else None)
    assert asked == [{"num_stages": 1} if with_bias else None]
    assert "num_stages" in library.FlexKernelOptions.__annotations__
