"""The optimizers that `train.optimizer` names, and their state as named tensors.

Which parameters weight decay acts on, and which are maps of hidden layers, the model says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer

from coma_gen.config.schema import TrainParams
from coma_gen.model.conformer import decayed_parameters, hidden_matrices
from coma_gen.training.distributed import SINGLE_PROCESS, Distributed
from coma_gen.training.muon import Muon

Optimizers = Sequence[Optimizer]
"""What takes one step together; each parameter that learns belongs to one of them."""


def build_adamw(model: nn.Module, params: TrainParams, _: Distributed) -> list[Optimizer]:
    """AdamW (Loshchilov & Hutter 2019) over all that learns."""
    return [_adamw(model, params, but={})]


def build_muon(model: nn.Module, params: TrainParams, ranks: Distributed) -> list[Optimizer]:
    """Muon over the maps of hidden layers; AdamW over embeddings, logits, gains, biases and the rest."""
    matrices = {weight: parts for weight, parts in hidden_matrices(model).items() if weight.requires_grad}
    if not matrices:
        return build_adamw(model, params, ranks)
    groups = [
        {"params": [weight for weight in matrices if matrices[weight] == parts], "parts": parts}
        for parts in sorted(set(matrices.values()))
    ]
    muon = Muon(
        groups,
        lr=params.muon_learning_rate,
        momentum=params.muon_momentum,
        weight_decay=params.muon_weight_decay,
        ranks=ranks,
    )
    return [muon, _adamw(model, params, but=matrices)]


OPTIMIZERS: dict[str, Callable[[nn.Module, TrainParams, Distributed], list[Optimizer]]] = {
    "adamw": build_adamw,
    "muon": build_muon,
}
"""By the names that `train.optimizer` may have."""


def build_optimizers(
    model: nn.Module, params: TrainParams, ranks: Distributed = SINGLE_PROCESS
) -> list[Optimizer]:
    """The optimizers of a run; each group's peak rate is its `initial_lr`, which `set_learning_rate` scales.

    Args:
        model: on its device.
        params: `optimizer` names one of `OPTIMIZERS`.
        ranks: those who share the run, and so may share the work of a step.
    """
    optimizers = OPTIMIZERS[params.optimizer](model, params, ranks)
    for group in _groups(optimizers):
        group["initial_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Optimizers, share: float) -> None:
    """Sets each group's rate to this share of its peak."""
    for group in _groups(optimizers):
        group["lr"] = group["initial_lr"] * share


def learning_parameters(optimizers: Optimizers) -> list[nn.Parameter]:
    """All parameters that learn."""
    return [parameter for group in _groups(optimizers) for parameter in group["params"]]


def optimizer_tensors(optimizers: Optimizers, model: nn.Module) -> dict[str, Tensor]:
    """The optimizers' state as `<parameter name>/<field>` -> tensor; empty before the first step."""
    return {
        f"{name}/{field}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for field, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(optimizers: Optimizers, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave, on the device and in the memory layout of each parameter."""
    parameters = dict(model.named_parameters())
    owners = {
        parameter: optimizer
        for optimizer in optimizers
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        parameter = parameters[name]
        restored = (
            torch.empty_like(parameter)
            if value.shape == parameter.shape
            else value.to(parameter.device, copy=True)
        )
        owners[parameter].state[parameter][field] = restored.detach().copy_(value)


def _groups(optimizers: Optimizers) -> list[dict[str, Any]]:
    return [group for optimizer in optimizers for group in optimizer.param_groups]


def _adamw(model: nn.Module, params: TrainParams, *, but: Mapping[nn.Parameter, int]) -> AdamW:
    """AdamW over the parameters that learn, some excepted, in one fused kernel."""
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: list[dict[str, Any]] = []
    for parameters, decay in zip(decayed_parameters(model), (params.weight_decay, 0.0), strict=True):
        learning = [p for p in parameters if p.requires_grad and p not in but]
        for ratio, chosen in (
            (1.0, [p for p in learning if p not in embeddings]),
            (params.embedding_rate_ratio, [p for p in learning if p in embeddings]),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr": params.learning_rate * ratio})
    return AdamW(groups, lr=params.learning_rate, betas=(params.beta1, params.beta2), fused=True)
