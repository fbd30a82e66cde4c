"""Every way of computing a training step learns as the plain path learns: 200 steps of each, side by side.

The plain path is plain.py, differentiated by autograd. What differs between the modes is rounding, which
training magnifies: the curves agree as long as the rounding is small, and stay near afterwards.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.attention import flex_attention as library

from coma_gen.model.attention import MultiScaleAttention
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer
from coma_gen.model.flex_attention import FlexBand, block_mask
from coma_gen.model.reference import plain_logits
from coma_gen.training.gradients import clip_gradient
from coma_gen.training.loss import sum_nll
from coma_gen.training.optimizer import build_optimizers

CPU = torch.device("cpu")
STEPS, BATCH, LENGTH = 200, 4, 24


class Plain(nn.Module):
    """A conformer's weights in the plain path."""

    def __init__(self, conformer: Conformer) -> None:
        super().__init__()
        self.conformer = conformer

    def forward(self, input_ids: Tensor) -> Tensor:
        weights = dict(self.conformer.named_parameters())
        return plain_logits(weights, params=self.conformer.params, input_ids=input_ids)


def windows(vocabulary: int) -> Tensor:
    """Sequences (STEPS, BATCH, LENGTH + 1) in which every other token repeats the one six before it."""
    ids = np.random.default_rng(7).integers(3, vocabulary, (STEPS, BATCH, LENGTH + 1))
    for position in range(6, LENGTH + 1, 2):
        ids[..., position] = ids[..., position - 6]
    return torch.from_numpy(ids)


def curve(
    trainer: ModuleType,
    *,
    wrap: Callable[[Conformer], nn.Module] = lambda model: model,
    bf16: bool = False,
    fused: bool = True,
) -> NDArray[np.float64]:
    """The loss of each step, in nats a token."""
    quiet = dict.fromkeys(("embedding_dropout", "attention_dropout", "ff_dropout", "conv_dropout"), 0.0)
    model: Conformer = trainer.make_model(dim=24, attention_position="xpos", **quiet).train()
    params = trainer.make_params(optimizer="adamw", learning_rate=0.003)
    learning = list(model.parameters())
    (optimizer,) = build_optimizers(model, params)
    for group in optimizer.param_groups:
        group["fused"] = fused
    way, losses = wrap(model), []
    for ids in windows(trainer.VOCABULARY):
        optimizer.zero_grad(set_to_none=True)
        nll = sum_nll(way, ids[:, :-1].contiguous(), ids[:, 1:].contiguous(), bf16=bf16)
        nll.backward()  # type: ignore[no-untyped-call]
        clip_gradient(learning, params.clip_norm, divisor=BATCH * LENGTH)
        optimizer.step()
        losses.append(nll.item() / (BATCH * LENGTH))
    return np.array(losses)


@pytest.fixture(scope="module")
def plain_curve(trainer: ModuleType) -> NDArray[np.float64]:
    """Of the plain path, under an optimizer that is not fused."""
    found = curve(trainer, wrap=Plain, fused=False)
    assert found[:10].mean() > 2.4 and found[-10:].mean() < 2.1  # it learns: chance is ln 9 = 2.2
    return found


def flex(model: Conformer) -> Conformer:
    """The model with one FlexAttention call for all windows, as on a GPU."""
    for module in model.modules():
        if isinstance(module, MultiScaleAttention):
            mask = block_mask(module.window_sizes, num_heads=module.num_heads, length=LENGTH, device=CPU)
            module.flex = FlexBand(mask, LENGTH, module.softmax_scale)
    return model


def compiled(model: Conformer) -> Conformer:
    """The model run through the compiler, which must not have failed."""
    ids = torch.zeros(BATCH, LENGTH, dtype=torch.int64)
    assert compile_model(model, length=LENGTH, device=CPU, warm_up=lambda: model(ids).sum().backward())
    return model


@pytest.mark.slow
def test_as_written(trainer: ModuleType, plain_curve: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(curve(trainer)[:50], plain_curve[:50], rtol=1e-4)
    np.testing.assert_allclose(curve(trainer), plain_curve, rtol=0.01)


@pytest.mark.slow
def test_in_bf16(trainer: ModuleType, plain_curve: NDArray[np.float64]) -> None:
    found = curve(trainer, bf16=True)
    assert not np.array_equal(found, curve(trainer))
    np.testing.assert_allclose(found, plain_curve, rtol=0.04)
    assert found[-50:].mean() == pytest.approx(plain_curve[-50:].mean(), rel=0.01)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")
def test_the_formulas_for_a_compiler_with_flex_attention(
    trainer: ModuleType, plain_curve: NDArray[np.float64], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compiled on a GPU, here not compiled."""
    monkeypatch.setattr(library, "_validate_device", lambda *_: None)  # for gradients on a CPU
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    found = curve(trainer, wrap=flex)
    np.testing.assert_allclose(found[:50], plain_curve[:50], rtol=1e-4)
    np.testing.assert_allclose(found, plain_curve, rtol=0.01)


@pytest.mark.slow
@pytest.mark.skipif(not any(map(shutil.which, ("g++", "clang++"))), reason="needs a C++ compiler")
@pytest.mark.filterwarnings("ignore")  # the compiler's own imports warn; what matters is compared
def test_compiled(
    trainer: ModuleType,
    plain_curve: NDArray[np.float64],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    found = curve(trainer, wrap=compiled)
    np.testing.assert_allclose(found[:50], plain_curve[:50], rtol=1e-4)
    np.testing.assert_allclose(found, plain_curve, rtol=0.01)
