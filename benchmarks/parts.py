"""Where is the time of a training step spent? Each part alone, forward and backward, ours and the reference.

Parts are measured in float32 with the activation shapes of a whole step. The share of a part is the time of
all its instances relative to the whole step of the same model, measured in the same run; the remainder is
copies and sums between parts. `attention alone` starts from queries, keys and values and includes positions;
`full causal` is torch's fused attention over the whole context without positions, as in a plain transformer.
The reference is reference.py, and for AdamW the default implementation of torch (the whole steps of both use
the fused one).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import AdamW

from benchmarks.learners import ours, plain, take_step
from benchmarks.reference import bucketed_attention
from benchmarks.sizes import Size, sizes, train_params
from benchmarks.timing import Variant, alternate, heading, milliseconds, parse_settings, percent, table, times
from coma_gen.model.attention import QK_NORM_SCALE
from coma_gen.model.local_attention import local_attention
from coma_gen.model.positions import Rotation, decay_base
from coma_gen.training.gradients import clip_gradient
from coma_gen.training.optimizer import build_optimizers

STEP = "whole step"
OURS, PLAIN = "ours", "plain"


@dataclass(frozen=True)
class Part:
    """A part of a training step.

    Attributes:
        name: Name in the table.
        kind: Implementation: ours, plain (the reference), or another one.
        count: Instances per step.
        variant: Runs one instance, forward and backward.
        of_step: Whether the whole step of this implementation contains it.
    """

    name: str
    kind: str
    count: int
    variant: Variant
    of_step: bool = True


def measure(size: Size, *, device: torch.device, rounds: int) -> str:
    """Computes the table of one size.

    Args:
        size: The model size.
        device: Device of the models.
        rounds: Measurements of each part.
    """
    learners = {OURS: ours(size, device), PLAIN: plain(size, device)}
    models = {kind: learner.model for kind, learner in learners.items()}
    parts = [
        *chain.from_iterable(branches(kind, model, size, device) for kind, model in models.items()),
        *attention_alone(size, device),
        *chain.from_iterable(ends(kind, model, size, device) for kind, model in models.items()),
        *(
            Part(STEP, kind, 1, Variant(take_step(learner, size, device)))
            for kind, learner in learners.items()
        ),
    ]
    named = {f"{part.name}/{part.kind}": part.variant for part in parts}
    timings = alternate(named, rounds=rounds, device=device)
    seconds = {(part.name, part.kind): timings[f"{part.name}/{part.kind}"].median for part in parts}
    order = list(dict.fromkeys(part.name for part in parts))
    rows = []
    for part in sorted(parts, key=lambda part: order.index(part.name)):
        own, base = seconds[part.name, part.kind], seconds[part.name, PLAIN]
        share = percent(part.count * own / seconds[STEP, part.kind]) if part.of_step else "-"
        spread = percent(timings[f"{part.name}/{part.kind}"].spread)
        rows.append(
            [part.name, part.kind, str(part.count), milliseconds(own), spread, share, times(base / own)]
        )
    head = ["part", "variant", "count", "ms each", "spread", "share of step", "faster than plain"]
    return table(head, rows, words=2)


def branches(kind: str, model: nn.Module, size: Size, device: torch.device) -> list[Part]:
    """Builds the branches of a block, and a hyper-connection around an identity branch."""
    block: Any = model.get_submodule("blocks.0")
    params = size.model
    x = torch.randn(size.batch, size.tokens, params.dim, device=device, requires_grad=True)
    shape = (size.batch, size.tokens, params.num_streams, params.dim)
    streams = torch.randn(shape, device=device, requires_grad=True)
    connection: nn.Module = block.connections[0]
    modules = {
        "feed-forward branch": (2, block.branches[0]),
        "attention branch": (1, block.branches[1]),
        "convolution branch": (1, block.branches[2]),
    }
    parts = [
        Part(name, kind, number * params.num_layers, forward_and_backward(module, [x], module))
        for name, (number, module) in modules.items()
    ]
    around = forward_and_backward(lambda: connection(streams, lambda read: read), [streams], connection)
    return [*parts, Part("hyper-connection", kind, 4 * params.num_layers, around)]


def attention_alone(size: Size, device: torch.device) -> list[Part]:
    """Builds attention from queries, keys and values to outputs, for all window sizes."""
    params = size.model
    shape = (len(params.window_sizes), size.batch, params.num_heads, size.tokens, params.head_dim)
    leaves = [F.normalize(torch.randn(shape, device=device), dim=-1).requires_grad_() for _ in range(3)]

    def over_windows(attend: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Variant:
        def run() -> Tensor:
            triples = zip(*(leaf.unbind(0) for leaf in leaves), params.window_sizes, strict=True)
            return torch.stack([attend(*triple) for triple in triples])

        return forward_and_backward(run, leaves)

    def bands(queries: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        rotation = Rotation(params.head_dim, decay_base(window))
        return local_attention(
            queries, keys, values, window=window, rotation=rotation, softmax_scale=QK_NORM_SCALE
        )

    def buckets(queries: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        return bucketed_attention(queries, keys, values, window=window, scale=QK_NORM_SCALE)

    def full(queries: Tensor, keys: Tensor, values: Tensor, _window: int) -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=QK_NORM_SCALE)

    kinds = {OURS: bands, PLAIN: buckets, "full causal": full}
    return [
        Part("attention alone", kind, params.num_layers, over_windows(attend), of_step=kind in (OURS, PLAIN))
        for kind, attend in kinds.items()
    ]


def ends(kind: str, model: nn.Module, size: Size, device: torch.device) -> list[Part]:
    """Builds the layers before and after the blocks, and the update after the backward pass."""
    input_ids = torch.randint(size.vocab_size, (size.batch, size.tokens), device=device)
    outer = nn.ModuleList(model.get_submodule(name) for name in ("token_embedding", "norm", "logits"))

    def run() -> Tensor:
        embedded = outer[0](input_ids)
        logits: Tensor = outer[2](outer[1](embedded))
        return F.cross_entropy(logits.flatten(0, 1), input_ids.flatten())

    params, learning = train_params(), list(model.parameters())
    optimizers = build_optimizers(model, params) if kind == OURS else [AdamW(learning)]

    def prepare() -> None:
        for parameter in learning:
            parameter.grad = torch.full_like(parameter, 1e-3) if parameter.grad is None else parameter.grad

    def update() -> None:
        clip_gradient(learning, params.clip_norm)
        for optimizer in optimizers:
            optimizer.step()

    return [
        Part("embedding, logits, loss", kind, 1, forward_and_backward(run, [], outer)),
        Part("clip and optimizer", kind, 1, Variant(update, prepare), of_step=kind == OURS),
    ]


def forward_and_backward(
    run: Callable[..., Tensor], inputs: list[Tensor], module: nn.Module | None = None
) -> Variant:
    """Returns a forward and backward pass with gradients of the inputs and of the module's parameters.

    A module is called with the inputs, another function without arguments.
    """
    learning = [] if module is None else list(module.parameters())

    def forward() -> Tensor:
        result: Tensor = run(*inputs) if isinstance(run, nn.Module) else run()
        return result

    with torch.no_grad():
        gradient = torch.randn_like(forward())
    return Variant(lambda: torch.autograd.grad(forward(), [*inputs, *learning], gradient))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of the larger size; without `--short`, of all sizes."""
    settings = parse_settings("benchmarks.parts", str(__doc__), arguments)
    print(heading("Parts of a training step", settings.device))
    for name, size in sizes().items():
        if settings.short and name != "36M":
            continue
        rounds = 2 if settings.short else 7
        print(f"{name}: {size.batch} x {size.tokens} tokens, fp32, {rounds} rounds\n")
        print(measure(size, device=settings.device, rounds=rounds), end="\n\n", flush=True)


if __name__ == "__main__":
    main()
