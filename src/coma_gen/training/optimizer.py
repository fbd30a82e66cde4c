"""AdamW (Loshchilov & Hutter 2019), and its state as named tensors.

Which parameters weight decay acts on, the model says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from coma_gen.config.schema import TrainParams
from coma_gen.model.conformer import decayed_parameters


def build_optimizer(model: nn.Module, params: TrainParams) -> AdamW:
    """AdamW over the parameters that learn, in one fused kernel; the loop sets each learning rate."""
    groups: list[dict[str, Any]] = []
    for parameters, decay in zip(decayed_parameters(model), (params.weight_decay, 0.0), strict=True):
        learning = [parameter for parameter in parameters if parameter.requires_grad]
        if learning:
            groups.append({"params": learning, "weight_decay": decay})
    return AdamW(groups, lr=params.learning_rate, betas=(params.beta1, params.beta2), fused=True)


def optimizer_tensors(optimizer: AdamW, model: nn.Module) -> dict[str, Tensor]:
    """The optimizer's state as `<parameter name>/<field>` -> tensor; empty before the first step."""
    return {
        f"{name}/{field}": value
        for name, parameter in model.named_parameters()
        for field, value in optimizer.state.get(parameter, {}).items()
    }


def restore_optimizer(optimizer: AdamW, model: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts back what `optimizer_tensors` gave, on the device and in the memory layout of each parameter."""
    parameters = dict(model.named_parameters())
    for key, value in tensors.items():
        name, field = key.rsplit("/", 1)
        parameter = parameters[name]
        place = (
            torch.empty_like(parameter)
            if value.shape == parameter.shape
            else value.to(parameter.device, copy=True)
        )
        optimizer.state[parameter][field] = place.detach().copy_(value)
