"""Optimizers selected by `train.optimizer`, and their state as named tensors.

model/conformer.py defines which parameters decay and which are hidden matrices.
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
"""Optimizers that step together; each trainable parameter belongs to exactly one."""


def build_adamw(model: nn.Module, params: TrainParams, _: Distributed) -> list[Optimizer]:
    """Builds AdamW (Loshchilov & Hutter 2019) for all trainable parameters."""
    return [_adamw(model, params, but={})]


def build_muon(model: nn.Module, params: TrainParams, ranks: Distributed) -> list[Optimizer]:
    """Builds Muon for the hidden matrices and AdamW for embeddings, logits, gains, biases and the rest."""
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
"""Value of `train.optimizer` -> builder."""


def build_optimizers(
    model: nn.Module, params: TrainParams, ranks: Distributed = SINGLE_PROCESS
) -> list[Optimizer]:
    """Builds the optimizers of a run; a group's peak learning rate is its `initial_lr`.

    Args:
        model: The model, on its device.
        params: Optimization settings; `optimizer` is a key of `OPTIMIZERS`.
        ranks: The ranks of the run, among which Muon divides its work.
    """
    optimizers = OPTIMIZERS[params.optimizer](model, params, ranks)
    for group in _groups(optimizers):
        group["initial_lr"] = group["lr"]
    return optimizers


def set_learning_rate(optimizers: Optimizers, factor: float) -> None:
    """Sets each group's learning rate to a fraction of its peak."""
    for group in _groups(optimizers):
        group["lr"] = group["initial_lr"] * factor


def trainable_parameters(optimizers: Optimizers) -> list[nn.Parameter]:
    """Returns all trainable parameters."""
    return [parameter for group in _groups(optimizers) for parameter in group["params"]]


def optimizer_tensors(optimizers: Optimizers, model: nn.Module) -> dict[str, Tensor]:
    """Returns the optimizers' state as `<parameter name>/<field>` -> tensor; empty before the first step."""
    return {
        f"{name}/{field}": value
        for name, parameter in model.named_parameters()
        for optimizer in optimizers
        for field, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizers(optimizers: Optimizers, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Restores the state from `optimizer_tensors`, with the device and memory layout of each parameter."""
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
    """Builds fused AdamW for the trainable parameters except `but`."""
    embeddings = {module.weight for module in model.modules() if isinstance(module, nn.Embedding)}
    groups: list[dict[str, Any]] = []
    for parameters, decay in zip(decayed_parameters(model), (params.weight_decay, 0.0), strict=True):
        trainable = [p for p in parameters if p.requires_grad and p not in but]
        for ratio, chosen in (
            (1.0, [p for p in trainable if p not in embeddings]),
            (params.embedding_rate_ratio, [p for p in trainable if p in embeddings]),
        ):
            if chosen:
                groups.append({"params": chosen, "weight_decay": decay, "lr": params.learning_rate * ratio})
    return AdamW(groups, lr=params.learning_rate, betas=(params.beta1, params.beta2), fused=True)
