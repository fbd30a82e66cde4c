"""Models for training benchmarks: ours in every mode, the reference, and transformers of other packages."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from benchmarks.peers import AbsentError, gpt2_logits, local_transformer, seeded, x_transformer
from benchmarks.reference import Reference, reference_weights
from benchmarks.sizes import Size, train_params
from coma_gen.model.compile import compile_model
from coma_gen.model.conformer import Conformer
from coma_gen.training.gradients import clip_gradient
from coma_gen.training.loss import sum_nll
from coma_gen.training.optimizer import build_optimizers

REFERENCE, X_TRANSFORMERS = "reference, fp32", "x-transformers Decoder, fp32"
PEERS: dict[str, Callable[[Size], nn.Module]] = {
    "local-attention LocalTransformer, fp32": local_transformer,
    X_TRANSFORMERS: x_transformer,
    "transformers GPT-2, fp32": gpt2_logits,
}


@dataclass(frozen=True)
class Learner:
    """A model in training.

    Attributes:
        model: The model, on its device.
        bf16: Whether it is trained under bf16 autocast.
        first_step_seconds: Wall time of the first step if it compiles; otherwise None.
    """

    model: nn.Module
    bf16: bool = False
    first_step_seconds: float | None = None


def build_learners(
    size: Size, device: torch.device, *, compiling: bool
) -> tuple[dict[str, Learner], dict[str, str]]:
    """Builds all models that this machine can train; for the others, returns the reasons.

    Args:
        size: The model size.
        device: Device of the models.
        compiling: Whether to include the compiled modes.
    """
    builders: dict[str, Callable[[], Learner]] = {
        REFERENCE: partial(plain, size, device),
        "ours, fp32": partial(ours, size, device),
        "ours, bf16": partial(ours, size, device, bf16=True),
    }
    if compiling:
        builders["ours, compiled, fp32"] = partial(compiled, size, device)
        builders["ours, compiled, bf16"] = partial(compiled, size, device, bf16=True)
    builders |= {name: partial(peer, build, size, device) for name, build in PEERS.items()}
    learners, absent = {}, {}
    for name, build in builders.items():
        try:
            learners[name] = build()
        except AbsentError as reason:
            absent[name] = str(reason)
    return learners, absent


def conformer(size: Size) -> Conformer:
    """Builds our model, with the same weights at every call."""
    return Conformer(params=size.model, vocab_size=size.vocab_size, seed=0)


def plain(size: Size, device: torch.device) -> Learner:
    """Builds the reference model with our weights."""
    model = Reference(size.model, size.vocab_size)
    model.load_state_dict(reference_weights(conformer(size).state_dict(), size.model))
    return Learner(model.to(device).train())


def ours(size: Size, device: torch.device, *, bf16: bool = False) -> Learner:
    """Builds our model in eager mode.

    Raises:
        AbsentError: bf16 was requested, and the device has no instructions for it.
    """
    on_cpu: Callable[[], bool] = torch.ops.mkldnn._is_mkldnn_bf16_supported
    if bf16 and not (torch.cuda.is_bf16_supported() if device.type == "cuda" else on_cpu()):
        raise AbsentError("no bf16 instructions")
    return Learner(conformer(size).to(device).train(), bf16)


def compiled(size: Size, device: torch.device, *, bf16: bool = False) -> Learner:
    """Builds our model compiled as by `train.compile: true`, after its first step.

    Raises:
        AbsentError: As `ours`, or torch cannot compile here.
    """
    learner = ours(size, device, bf16=bf16)
    assert isinstance(learner.model, Conformer)
    started = time.perf_counter()
    step = take_step(learner, size, device)
    if not compile_model(learner.model, length=size.tokens, device=device, warm_up=step):
        raise AbsentError("torch cannot compile")
    if device.type == "cuda":
        torch.cuda.synchronize()
    return replace(learner, first_step_seconds=time.perf_counter() - started)


def peer(build: Callable[[Size], nn.Module], size: Size, device: torch.device) -> Learner:
    """Builds another package's model.

    Raises:
        AbsentError: The package is not installed.
    """
    return Learner(seeded(lambda: build(size)).to(device).train())


def take_step(learner: Learner, size: Size, device: torch.device) -> Callable[[], None]:
    """Returns a function that takes one training step, always on the same batch."""
    generator = torch.Generator().manual_seed(0)
    shape = (size.batch, size.tokens + 1)
    ids = torch.randint(size.vocab_size, shape, generator=generator).to(device)
    input_ids, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    params, learning = train_params(), list(learner.model.parameters())
    is_ours = isinstance(learner.model, Conformer)
    optimizers = build_optimizers(learner.model, params) if is_ours else [AdamW(learning, fused=True)]

    def step() -> None:
        learner.model.zero_grad(set_to_none=True)
        nll: Tensor = sum_nll(learner.model, input_ids, targets, bf16=learner.bf16)
        nll.backward()  # type: ignore[no-untyped-call]
        clip_gradient(learning, params.clip_norm, divisor=targets.numel())
        for optimizer in optimizers:
            optimizer.step()

    return step
