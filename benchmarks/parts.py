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
    """Something that a step does.

    Attributes:
        name: what it is.
        way: ours, plain, or another way of doing it.
        count: how often a step does it.
        variant: does it once, forward and backward.
        of_step: whether the whole step of that way does it so.
    """

    name: str
    way: str
    count: int
    variant: Variant
    of_step: bool = True


def measure(size: Size, *, device: torch.device, rounds: int) -> str:
    """The table of one size.

    Args:
        size: the shape.
        device: where to compute.
        rounds: times each part is measured.
    """
    learners = {OURS: ours(size, device), PLAIN: plain(size, device)}
    models = {way: learner.model for way, learner in learners.items()}
    parts = [
        *chain.from_iterable(branches(way, model, size, device) for way, model in models.items()),
        *attention_alone(size, device),
        *chain.from_iterable(ends(way, model, size, device) for way, model in models.items()),
        *(Part(STEP, way, 1, Variant(take_step(learner, size, device))) for way, learner in learners.items()),
    ]
    named = {f"{part.name}/{part.way}": part.variant for part in parts}
    timings = alternate(named, rounds=rounds, device=device)
    seconds = {(part.name, part.way): timings[f"{part.name}/{part.way}"].median for part in parts}
    order = list(dict.fromkeys(part.name for part in parts))
    rows = []
    for part in sorted(parts, key=lambda part: order.index(part.name)):
        own, base = seconds[part.name, part.way], seconds[part.name, PLAIN]
        share = percent(part.count * own / seconds[STEP, part.way]) if part.of_step else "-"
        spread = percent(timings[f"{part.name}/{part.way}"].spread)
        rows.append(
            [part.name, part.way, str(part.count), milliseconds(own), spread, share, times(base / own)]
        )
    head = ["part", "way", "a step", "ms each", "spread", "of its step", "faster than plain"]
    return table(head, rows, words=2)


def branches(way: str, model: nn.Module, size: Size, device: torch.device) -> list[Part]:
    """The branches of a block, and a hyper-connection around nothing."""
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
        Part(name, way, number * params.num_layers, there_and_back(module, [x], module))
        for name, (number, module) in modules.items()
    ]
    around = there_and_back(lambda: connection(streams, lambda read: read), [streams], connection)
    return [*parts, Part("hyper-connection", way, 4 * params.num_layers, around)]


def attention_alone(size: Size, device: torch.device) -> list[Part]:
    """From queries, keys and values of all window sizes to what was attended."""
    params = size.model
    shape = (len(params.window_sizes), size.batch, params.num_heads, size.tokens, params.head_dim)
    leaves = [F.normalize(torch.randn(shape, device=device), dim=-1).requires_grad_() for _ in range(3)]

    def over_windows(attend: Callable[[Tensor, Tensor, Tensor, int], Tensor]) -> Variant:
        def run() -> Tensor:
            triples = zip(*(leaf.unbind(0) for leaf in leaves), params.window_sizes, strict=True)
            return torch.stack([attend(*triple) for triple in triples])

        return there_and_back(run, leaves)

    def bands(queries: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        rotation = Rotation(params.head_dim, decay_base(window))
        return local_attention(
            queries, keys, values, window=window, rotation=rotation, softmax_scale=QK_NORM_SCALE
        )

    def buckets(queries: Tensor, keys: Tensor, values: Tensor, window: int) -> Tensor:
        return bucketed_attention(queries, keys, values, window=window, scale=QK_NORM_SCALE)

    def full(queries: Tensor, keys: Tensor, values: Tensor, _window: int) -> Tensor:
        return F.scaled_dot_product_attention(queries, keys, values, is_causal=True, scale=QK_NORM_SCALE)

    ways = {OURS: bands, PLAIN: buckets, "full causal": full}
    return [
        Part("attention alone", way, params.num_layers, over_windows(attend), of_step=way in (OURS, PLAIN))
        for way, attend in ways.items()
    ]


def ends(way: str, model: nn.Module, size: Size, device: torch.device) -> list[Part]:
    """What comes before and after the blocks, and what follows the gradient."""
    input_ids = torch.randint(size.vocab_size, (size.batch, size.tokens), device=device)
    outer = nn.ModuleList(model.get_submodule(name) for name in ("token_embedding", "norm", "logits"))

    def run() -> Tensor:
        embedded = outer[0](input_ids)
        logits: Tensor = outer[2](outer[1](embedded))
        return F.cross_entropy(logits.flatten(0, 1), input_ids.flatten())

    params, learning = train_params(), list(model.parameters())
    optimizers = build_optimizers(model, params) if way == OURS else [AdamW(learning)]

    def prepare() -> None:
        for parameter in learning:
            parameter.grad = torch.full_like(parameter, 1e-3) if parameter.grad is None else parameter.grad

    def update() -> None:
        clip_gradient(learning, params.clip_norm)
        for optimizer in optimizers:
            optimizer.step()

    return [
        Part("embedding, logits, loss", way, 1, there_and_back(run, [], outer)),
        Part("clip and optimizer", way, 1, Variant(update, prepare), of_step=way == OURS),
    ]


def there_and_back(
    run: Callable[..., Tensor], inputs: list[Tensor], module: nn.Module | None = None
) -> Variant:
    """Forward, and backward to the inputs and the module's parameters. A module is called with the inputs."""
    learning = [] if module is None else list(module.parameters())

    def forward() -> Tensor:
        result: Tensor = run(*inputs) if isinstance(run, nn.Module) else run()
        return result

    with torch.no_grad():
        gradient = torch.randn_like(forward())
    return Variant(lambda: torch.autograd.grad(forward(), [*inputs, *learning], gradient))


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints the table of the larger size, and in the long form that of the smaller, too."""
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
