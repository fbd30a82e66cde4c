"""Condition bins of prompts and continuations; prefill, decoding and rewinding use the same ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SCALE, written_model
from tiny_music import BAR, BOS, bar, note, vocabulary

from coma_gen.config.schema import CONDITION_BINS, CONDITIONS
from coma_gen.core.errors import UserError
from coma_gen.generation.condition_sequence import (
    MIDDLE_BIN,
    ConditionSequence,
    compute_prompt_bins,
    compute_target_bins,
)
from coma_gen.generation.continuation import Continuation
from coma_gen.generation.controls import Controls
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.generate import generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.settings import build_request
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.conditions import ConditionTables

TABLES = ConditionTables.from_vocabulary(vocabulary(), CONDITIONS)
FOLLOWED = np.array([6, 4, 7, 5])


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    """An untrained model whose output depends on its conditions."""
    folder = tmp_path_factory.mktemp("conditions")
    composer = MusicGenerator.load(written_model(folder, conditions=CONDITIONS))
    for table in composer.loaded.model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(2))
        table.weight.data[0] = 0
    return composer


def pieces(composer: MusicGenerator, prompts: list[Notes | None], **controls: object) -> list[Continuation]:
    return generate_batch(
        composer,
        prompts,
        seconds=4,
        sampling=SamplingParams(top_p=0.95),
        seed=1,
        max_tokens=200,
        controls=Controls(**controls),  # type: ignore[arg-type]
        desc=None,
    )


def test_the_end_of_a_prompt_by_hand() -> None:
    early, late = bar(9, velocity=90), bar(9)
    # The last onset is 8 s after the last one of the early bars: 36 notes of 4 bars, 4.5 a second.
    assert compute_prompt_bins(TABLES, [*early * 4, *late * 4]).tolist() == [6, 4, 7, 5]
    # 9 notes within the 2 s behind the first ones.
    assert compute_prompt_bins(TABLES, [*early, *late]).tolist() == [6, 4, 7, 5]
    assert not compute_prompt_bins(TABLES, late).any(), "one onset has no density"
    assert not compute_prompt_bins(TABLES, [BOS, BAR]).any()


def test_target_bins_are_the_prompts_shifted_or_a_target() -> None:
    def target_bins(followed: np.ndarray = FOLLOWED, **controls: object) -> list[int]:
        return compute_target_bins(Controls(**controls), TABLES, followed).tolist()  # type: ignore[arg-type]

    assert target_bins() == [6, 4, 7, 5]
    assert target_bins(follow=False) == [0, 0, 0, 0]
    assert target_bins(density=1, loudness=-0.5) == [8, 3, 7, 5]
    assert target_bins(follow=False, register=-1) == [0, 0, 5, 0], "lower than the prompt, the rest is free"
    assert target_bins(density=3, loudness=-3) == [12, 1, 7, 5]
    assert target_bins(np.array([15, 0, 0, 0]), density=3, polyphony=1) == [
        CONDITION_BINS,
        0,
        0,
        MIDDLE_BIN + 2,
    ]
    assert target_bins(target="density=5, loudness=60") == [7, 8, 7, 5]


def test_prompt_bins_are_those_of_its_blocks_unless_nothing_is_requested() -> None:
    prompt_ids = [BOS, *bar(9) * 4, *bar(3, velocity=90) * 2]
    bins = ConditionSequence.from_prompt(Controls(target="register=70"), TABLES, prompt_ids, note())
    np.testing.assert_array_equal(bins.prompt_bins, TABLES.compute_bins(prompt_ids))
    assert (
        bins.tail(5, 2)[:, 2].tolist() == [0, 0, 0, 12, 12]
        and bins.tail(3, 9).tolist() == [[*bins.target_bins]] * 3
    )
    assert len(bins.tail(10**9, 4)) == len(prompt_ids) + 4
    dropped = ConditionSequence.from_prompt(Controls(follow=False), TABLES, prompt_ids, ())
    assert (
        not dropped.prompt_bins.any()
        and not dropped.target_bins.any()
        and len(dropped.prompt_bins) == len(prompt_ids)
    )


def test_conditions_change_the_music_and_other_rows_do_not(composer: MusicGenerator) -> None:
    other = Notes.of(SCALE.onset, SCALE.duration, SCALE.pitch - 20, SCALE.velocity - 30)
    together = pieces(composer, [SCALE, other, None])
    alone = pieces(composer, [SCALE])
    assert together[0].added == alone[0].added and all(piece.valid for piece in together)
    assert pieces(composer, [SCALE])[0].added == alone[0].added
    for controls in ({"follow": False}, {"density": 2.0}, {"target": "polyphony=9"}):
        assert pieces(composer, [SCALE], **controls)[0].added != alone[0].added
    assert pieces(composer, [None])[0].added == pieces(composer, [None], follow=False)[0].added


def test_without_bins_the_model_equals_one_without_conditions(
    composer: MusicGenerator, tmp_path: Path
) -> None:
    plain = MusicGenerator.load(written_model(tmp_path))
    unconditioned = pieces(composer, [SCALE, None], follow=False)
    assert [piece.added for piece in unconditioned] == [piece.added for piece in pieces(plain, [SCALE, None])]


@pytest.mark.parametrize("options", [{}, {"position_embedding": "learned", "max_seq_len": 32}], ids=str)
def test_decoding_has_the_conditions_of_the_whole_sequence(
    options: dict[str, object], tmp_path: Path
) -> None:
    composer = MusicGenerator.load(written_model(tmp_path, conditions=("density", "register"), **options))
    model = composer.loaded.model
    for table in model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(2))
    tables = composer.conditions
    assert tables is not None
    prompt_ids = [composer.tokenizer.bos_id, *composer.tokenizer.encode(SCALE).tolist()][:30]
    sequences = [
        SequenceState(
            prompt_ids[:size],
            index=0,
            until=9.0,
            conditions=ConditionSequence.from_prompt(Controls(**control), tables, prompt_ids[:size], ()),
        )
        for size, control in (
            (13, {"target": "density=2"}),
            (13, {"target": "register=80"}),
            (9, {"follow": False}),
        )
    ]
    with torch.inference_mode():
        engine = DecodeEngine(model, sequences)
        for token in prompt_ids[13:22]:
            for sequence in sequences:
                sequence.add(token, in_prefix=False, illegal=0.0, seconds=0.0)
            engine.read(sequences, range(3))
        for row, sequence in enumerate(sequences):
            ids = torch.tensor([sequence.tail(100)])
            bins = torch.from_numpy(sequence.tail_conditions(100))[None]
            whole = model(ids, conditions=bins)[0, -1]
            np.testing.assert_allclose(engine.logits[row], whole.numpy(), atol=2e-5)


def test_rewinding_restores_the_conditions(composer: MusicGenerator) -> None:
    tables = composer.conditions
    assert tables is not None
    prompt_ids = [composer.tokenizer.bos_id, *composer.tokenizer.encode(SCALE).tolist()]

    def fresh() -> SequenceState:
        return SequenceState(
            prompt_ids,
            index=0,
            until=9.0,
            conditions=ConditionSequence.from_prompt(Controls(), tables, prompt_ids, ()),
        )

    with torch.inference_mode():
        straight, back = fresh(), fresh()
        engine = DecodeEngine(composer.loaded.model, [straight])
        for token in prompt_ids[1:7]:
            straight.add(token, in_prefix=False, illegal=0.0, seconds=0.0)
            back.add(token, in_prefix=False, illegal=0.0, seconds=0.0)
            engine.read([straight], [0])
        back.add(prompt_ids[9], in_prefix=False, illegal=0.0, seconds=0.0)
        back.rewind(6)
        again = DecodeEngine(composer.loaded.model, [back])
    np.testing.assert_allclose(again.logits, engine.logits, atol=2e-5)


def test_a_control_without_its_condition_is_refused(tmp_path: Path) -> None:
    plain = MusicGenerator.load(written_model(tmp_path / "plain"))
    some = MusicGenerator.load(written_model(tmp_path / "some", conditions=("density",)))
    with pytest.raises(
        UserError, match=r"polyphony: needs a model .* condition polyphony, got one with none"
    ):
        pieces(plain, [SCALE], polyphony=1.0)
    with pytest.raises(UserError, match=r"target: needs .* condition loudness, got one with density"):
        pieces(some, [SCALE], target="density=4,loudness=60")
    assert pieces(some, [SCALE], target="density=4")[0].valid
    biased = [pieces(some, [SCALE] * 4, loudness=control, follow=False) for control in (2.0, -2.0)]
    for up, down in zip(*biased, strict=True):
        assert up.new.velocity.mean() > down.new.velocity.mean(), (
            "a logit bias applies where there is no condition"
        )


def test_invalid_targets_are_refused() -> None:
    for text in (
        "density",
        "density=",
        "speed=3",
        "density=1,density=2",
        "loudness=0",
        "register=1e9",
        "density=-1",
    ):
        (fault,) = Controls(target=text).faults()
        assert fault.where == "target" and "density=5,loudness=60" in fault.rule
    (fault,) = Controls(target="density=5", density=1.0).faults()
    assert fault.where == "density" and "combined with a target" in fault.rule
    assert Controls(target="density=5, register=60.5").targets == {"density": 5.0, "register": 60.5}
    request = build_request({"target": {"density": 5, "loudness": 60}, "follow": False}, has_prompt=True)
    assert request.controls == Controls(target="density=5,loudness=60", follow=False)
