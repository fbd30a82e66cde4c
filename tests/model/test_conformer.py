"""The whole model: causality, size, initialization, dropout and limits."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from coma_gen.config.schema import ModelParams
from coma_gen.core.errors import UserError
from coma_gen.generation.token_decoder import TokenDecoder
from coma_gen.model.conformer import Conformer, decayed_parameters, num_parameters


def reached(model: Conformer, input_ids: torch.Tensor, position: int) -> list[int]:
    """The positions whose embeddings the logits at `position` depend on."""
    embedded: list[torch.Tensor] = []
    hook = model.token_embedding.register_forward_hook(lambda *call: embedded.append(call[2]))
    logits = model(input_ids)
    hook.remove()
    (gradient,) = torch.autograd.grad(logits[0, position].square().sum(), embedded[0])
    return gradient[0].abs().sum(-1).nonzero().flatten().tolist()


@pytest.mark.parametrize("position", ["xpos", "rotary", "dynamic", "none"])
@pytest.mark.parametrize("windows,kernel", [((3, 7), 4), ((5,), 1), ((1, 2), 6)])
@pytest.mark.parametrize("num_streams", [1, 4])
def test_a_logit_depends_on_its_receptive_field_and_nothing_else(
    position: str,
    windows: tuple[int, ...],
    kernel: int,
    num_streams: int,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model = make_model(
        attention_position=position, window_sizes=windows, kernel_size=kernel, num_streams=num_streams
    )
    field = model.receptive_field
    assert field == 1 + 2 * (max(windows) + kernel - 1)
    for t in (0, 3, 39, 59):
        assert reached(model, some_ids(1, 60), t) == list(range(max(0, t - field + 1), t + 1))


@pytest.mark.parametrize(
    "branches,field",
    [
        (("attention", "feed_forward"), 1 + 2 * 7),
        (("convolution", "attention", "convolution"), 1 + 2 * (3 + 7 + 3)),
        (("feed_forward", "half_feed_forward"), 1),
    ],
)
def test_the_field_follows_from_the_branches(
    branches: tuple[str, ...],
    field: int,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model = make_model(branches=branches)
    assert model.receptive_field == field
    for t in (0, 39, 59):
        assert reached(model, some_ids(1, 60), t) == list(range(max(0, t - field + 1), t + 1))


def test_the_field_is_exact_across_query_blocks(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model = make_model(num_layers=1, window_sizes=(2, 90), attention_position="rotary")
    for t in (63, 64, 128, 200, 299):
        assert reached(model, some_ids(1, 300), t) == list(range(max(0, t - 93), t + 1))


def test_a_global_layer_sees_everything_before(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model = make_model(global_attention_layers=(1,), attention_position="rotary")
    assert model.receptive_field is None
    for t in (0, 20, 149):
        assert reached(model, some_ids(1, 150), t) == list(range(t + 1))


LARGE = {
    "dim": 512,
    "num_layers": 4,
    "num_heads": 8,
    "head_dim": 64,
    "window_sizes": (64, 256, 512),
    "kernel_size": 31,
    "num_streams": 4,
    "max_seq_len": 1024,
    "conv_expansion": 2,
    "ff_expansion": 4.0,
}


def test_number_of_parameters(make_params: Callable[..., ModelParams]) -> None:
    """The published shape at V = 434 has 36,861,356 parameters, and so has this model.

    QK normalization adds a gain for each dimension of a head, for queries and keys, of 3 scales in each
    of 4 layers; without the position embedding 1024 x 512 fall away.
    """
    params = make_params(**LARGE, position_embedding="learned", qk_rmsnorm=False)
    published = 36_861_356
    assert num_parameters(Conformer(params=params, vocab_size=434, seed=0)) == published
    params = make_params(**LARGE, position_embedding="none", qk_rmsnorm=True)
    gains, positions = 4 * 3 * 2 * 64, 1024 * 512
    model = Conformer(params=params, vocab_size=434, seed=0)
    assert num_parameters(model) == published + gains - positions
    block = model.blocks[0]
    connection = num_parameters(block.connections[1])
    assert connection == 3_610
    assert num_parameters(block.branches[0]) + connection == 2_104_346
    assert num_parameters(block.branches[1]) - 3 * 2 * 64 + connection == 3_150_365
    assert num_parameters(block.branches[2]) + connection == 1_613_850


def test_weights_are_a_function_of_the_seed(make_params: Callable[..., ModelParams]) -> None:
    params = make_params(
        position_embedding="learned", attention_position="dynamic", global_attention_layers=(0,)
    )
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = Conformer(params=params, vocab_size=11, seed=4).state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = Conformer(params=params, vocab_size=11, seed=4).state_dict()
    other = Conformer(params=params, vocab_size=11, seed=5).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["token_embedding.weight"], other["token_embedding.weight"])
    moved = [name for name in first if name.endswith("static") and not torch.equal(first[name], other[name])]
    assert len(moved) == 9  # the stream that each of the nine branches reads at the start
    assert all(torch.isfinite(tensor).all() for tensor in first.values())
    assert all(tensor.device.type == "cpu" for tensor in first.values())


def test_branches_do_not_all_read_the_same_stream(make_params: Callable[..., ModelParams]) -> None:
    model = Conformer(params=make_params(), vocab_size=11, seed=0)
    streams = [connection.first_stream for block in model.blocks for connection in block.connections]
    assert set(streams) == {0, 1, 2, 3}


@pytest.mark.parametrize("name", ["embedding_dropout", "attention_dropout", "ff_dropout", "conv_dropout"])
def test_each_dropout_acts_in_training_alone(
    name: str, make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, without, ids = make_model(**{name: 0.4}), make_model(), some_ids(2, 30)

    def run(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        return model(ids).detach()

    assert torch.equal(run(0), without(ids).detach())
    model.train()
    assert torch.equal(run(0), run(0))
    assert not torch.allclose(run(0), run(1), atol=1e-3)
    assert not torch.allclose(run(0), without(ids), atol=1e-3)


def test_one_stream_is_the_plain_residual(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(num_streams=1), some_ids(2, 20)
    x = model.token_embedding(ids)
    for block in model.blocks:
        for branch in block.branches:
            x = x + branch(x)
    torch.testing.assert_close(model(ids), model.logits(model.norm(x)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("position", ["xpos", "rotary", "dynamic"])
@pytest.mark.parametrize("global_layers,length", [((), 12_000), ((0,), 5_000)])
def test_thousands_of_tokens_in_float32(
    position: str, global_layers: tuple[int, ...], length: int, make_model: Callable[..., Conformer]
) -> None:
    """In one pass and token by token at the end; the input's period shows that positions do not wear out."""
    exact = make_model(
        attention_position=position, global_attention_layers=global_layers, window_sizes=(2, 16)
    )
    ids = torch.arange(length)[None] % 11
    with torch.inference_mode():
        reference = exact(ids)
        model = exact.float()
        logits = model(ids)
        state = model.init_cache(1)
        model(ids[:, :-40], state)
        step = TokenDecoder(model)
        decoded = torch.stack([step(token, state) for token in ids[:, -40:].split(1, dim=1)], dim=1)
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits.double(), reference, rtol=0, atol=2e-3)
    torch.testing.assert_close(decoded, logits[:, -40:], rtol=0, atol=5e-4)
    if not global_layers:
        torch.testing.assert_close(logits[:, 11_000:11_500], logits[:, 11_011:11_511], rtol=0, atol=1e-3)


def test_a_learned_position_embedding_has_an_end(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model, ids = make_model(position_embedding="learned", max_seq_len=20), some_ids(1, 21)
    assert model(ids[:, :20]).shape == (1, 20, 11)
    with pytest.raises(UserError, match=r"max_seq_len.* 20 tokens.*21 tokens"):
        model(ids)
    state = model.init_cache(1)
    model(ids[:, :20], state)
    before = state.copy()
    with pytest.raises(UserError, match="Prefill an empty state"):
        model(ids[:, 20:], state)
    assert state.lengths == (20,) and state.num_appended == before.num_appended
    assert torch.equal(state.blocks[0][1][0].buffer, before.blocks[0][1][0].buffer)


def test_ids_and_states_of_the_wrong_shape_are_refused(
    make_model: Callable[..., Conformer], some_ids: Callable[..., torch.Tensor]
) -> None:
    model = make_model()
    with pytest.raises(ValueError, match="batch, tokens"):
        model(some_ids(3))
    with pytest.raises(ValueError, match="batch, tokens"):
        model(some_ids(3, 0))
    with pytest.raises(ValueError, match="state has 2 rows"):
        model(some_ids(3, 1), model.init_cache(2))


@pytest.mark.parametrize("position", ["xpos", "dynamic"])
@pytest.mark.parametrize("num_streams", [1, 4])
def test_bf16_autocast_trains_and_decodes(
    position: str,
    num_streams: int,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
) -> None:
    model = make_model(
        attention_position=position,
        num_streams=num_streams,
        global_attention_layers=(1,),
        attention_dropout=0.1,
    ).float()
    ids = some_ids(2, 150)
    expected = model(ids)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits, state = model(ids), model.init_cache(2)
        with torch.no_grad():
            decoded = torch.cat([model(chunk, state) for chunk in ids.split([100, 1, 1, 48], dim=1)], dim=1)
        model.train()
        loss = model(ids).float().square().mean()
    loss.backward()
    assert logits.dtype == torch.bfloat16
    assert (logits.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert (decoded.float() - expected).abs().mean() < 0.05 * expected.abs().mean()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in model.parameters())


@pytest.mark.parametrize("num_streams", [1, 4])
@pytest.mark.parametrize("compiling", [False, True])
def test_streams_in_bfloat16_differ_by_its_rounding(
    compiling: bool,
    num_streams: int,
    make_model: Callable[..., Conformer],
    some_ids: Callable[..., torch.Tensor],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Logits and all gradients together, against float32 streams; a branch more is a rounding more."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiling)
    model, ids = make_model(num_streams=num_streams).float(), some_ids(2, 40)
    found = []
    for dtype in (None, torch.bfloat16):
        model.stream_dtype = dtype
        logits = model(ids)
        gradients = torch.autograd.grad(logits.square().mean(), list(model.parameters()))
        found.append((logits.detach().flatten(), torch.cat([part.flatten() for part in gradients])))
    for exact, rounded in zip(*found, strict=True):
        assert rounded.dtype == torch.float32
        assert 1e-4 < (rounded - exact).norm() / exact.norm() < 0.05


def test_weight_decay_leaves_gains_and_hyper_connections_alone(make_model: Callable[..., Conformer]) -> None:
    model = make_model(position_embedding="learned")
    decayed, others = decayed_parameters(model)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert len(decayed) + len(others) == len(names)
    assert {names[id(parameter)].rsplit(".", 1)[1] for parameter in decayed} == {"weight", "depthwise_weight"}
    assert not any(
        "norm" in names[id(parameter)] or "connections" in names[id(parameter)] for parameter in decayed
    )
    assert all(parameter.dim() == 2 for parameter in decayed)


def test_it_learns_to_repeat(make_params: Callable[..., ModelParams]) -> None:
    """A sequence of period 5, unforeseeable but for its past: the loss falls far below chance."""
    model = Conformer(params=make_params(dim=16), vocab_size=11, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    generator, losses = torch.Generator().manual_seed(0), []
    for _ in range(80):
        ids = torch.randint(11, (8, 5), generator=generator).repeat(1, 5)
        loss = torch.nn.functional.cross_entropy(model(ids)[:, 5:-1].flatten(0, 1), ids[:, 6:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(2.4, abs=0.4)
    assert losses[-1] < 1.0
