"""What a model with conditions is told, of its prompt and of what is wished for; all paths tell it alike."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import SCALE, written_model
from tiny_music import BAR, BOS, bar, note, vocabulary

from coma_gen.config.schema import CONDITION_BINS, CONDITIONS
from coma_gen.core.errors import UserError
from coma_gen.generation.controls import Controls
from coma_gen.generation.engine import DecodeEngine
from coma_gen.generation.generate import Continuation, generate_batch
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.sampling import SamplingParams
from coma_gen.generation.sequence import SequenceState
from coma_gen.generation.settings import build_request
from coma_gen.generation.told import MIDDLE, Told, bins_at_end, wanted_bins
from coma_gen.midi.notes import Notes
from coma_gen.tokenizer.conditions import ConditionTables

TABLES = ConditionTables.from_vocabulary(vocabulary(), CONDITIONS)
FOLLOWED = np.array([6, 4, 7, 5])


@pytest.fixture(scope="module")
def composer(tmp_path_factory: pytest.TempPathFactory) -> MusicGenerator:
    """An untrained model to which what it is told makes a difference."""
    folder = tmp_path_factory.mktemp("told")
    composer = MusicGenerator.load(written_model(folder, conditions=CONDITIONS))
    for table in composer.loaded.model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(2))
        table.weight.data[0] = 0
    return composer


def pieces(composer: MusicGenerator, prompts: list[Notes | None], **wishes: object) -> list[Continuation]:
    return generate_batch(
        composer,
        prompts,
        seconds=4,
        choice=SamplingParams(top_p=0.95),
        seed=1,
        max_tokens=200,
        controls=Controls(**wishes),  # type: ignore[arg-type]
        desc=None,
    )


def test_the_end_of_a_prompt_by_hand() -> None:
    early, late = bar(9, velocity=90), bar(9)
    # The last onset is 8 s after the last one of the early bars: 36 notes of 4 bars, 4.5 a second.
    assert bins_at_end(TABLES, [*early * 4, *late * 4]).tolist() == [6, 4, 7, 5]
    # 9 notes within the 2 s behind the first ones.
    assert bins_at_end(TABLES, [*early, *late]).tolist() == [6, 4, 7, 5]
    assert not bins_at_end(TABLES, late).any(), "one onset has no density"
    assert not bins_at_end(TABLES, [BOS, BAR]).any()


def test_what_is_wanted_is_the_prompts_moved_or_a_target() -> None:
    def wanted(followed: np.ndarray = FOLLOWED, **wishes: object) -> list[int]:
        return wanted_bins(Controls(**wishes), TABLES, followed).tolist()  # type: ignore[arg-type]

    assert wanted() == [6, 4, 7, 5]
    assert wanted(follow=False) == [0, 0, 0, 0]
    assert wanted(density=1, loudness=-0.5) == [8, 3, 7, 5]
    assert wanted(follow=False, register=-1) == [0, 0, 5, 0], "lower than the prompt, the rest is free"
    assert wanted(density=3, loudness=-3) == [12, 1, 7, 5]
    assert wanted(np.array([15, 0, 0, 0]), density=3, polyphony=1) == [CONDITION_BINS, 0, 0, MIDDLE + 2]
    assert wanted(target="density=5, loudness=60") == [7, 8, 7, 5]


def test_the_prompt_is_told_its_own_blocks_unless_nothing_is_wanted() -> None:
    read = [BOS, *bar(9) * 4, *bar(3, velocity=90) * 2]
    told = Told.of(Controls(target="register=70"), TABLES, read, note())
    np.testing.assert_array_equal(told.of_prompt, TABLES.compute_bins(read))
    assert (
        told.tail(5, 2)[:, 2].tolist() == [0, 0, 0, 12, 12]
        and told.tail(3, 9).tolist() == [[*told.wanted]] * 3
    )
    assert len(told.tail(10**9, 4)) == len(read) + 4
    silent = Told.of(Controls(follow=False), TABLES, read, ())
    assert not silent.of_prompt.any() and not silent.wanted.any() and len(silent.of_prompt) == len(read)


def test_it_decides_and_neighbors_do_not(composer: MusicGenerator) -> None:
    other = Notes.of(SCALE.onset, SCALE.duration, SCALE.pitch - 20, SCALE.velocity - 30)
    together = pieces(composer, [SCALE, other, None])
    alone = pieces(composer, [SCALE])
    assert together[0].added == alone[0].added and all(piece.valid for piece in together)
    assert pieces(composer, [SCALE])[0].added == alone[0].added
    for wishes in ({"follow": False}, {"density": 2.0}, {"target": "polyphony=9"}):
        assert pieces(composer, [SCALE], **wishes)[0].added != alone[0].added
    assert pieces(composer, [None])[0].added == pieces(composer, [None], follow=False)[0].added


def test_nothing_told_is_the_model_that_is_told_nothing(composer: MusicGenerator, tmp_path: Path) -> None:
    plain = MusicGenerator.load(written_model(tmp_path))
    untold = pieces(composer, [SCALE, None], follow=False)
    assert [piece.added for piece in untold] == [piece.added for piece in pieces(plain, [SCALE, None])]


@pytest.mark.parametrize("options", [{}, {"position_embedding": "learned", "max_seq_len": 32}], ids=str)
def test_one_token_at_a_time_is_told_what_the_whole_is(options: dict[str, object], tmp_path: Path) -> None:
    composer = MusicGenerator.load(written_model(tmp_path, conditions=("density", "register"), **options))
    model = composer.loaded.model
    for table in model.condition_embeddings.values():
        torch.nn.init.normal_(table.weight, generator=torch.Generator().manual_seed(2))
    tables = composer.conditions
    assert tables is not None
    read = [composer.tokenizer.bos_id, *composer.tokenizer.encode(SCALE).tolist()][:30]
    sequences = [
        SequenceState(
            read[:size], index=0, until=9.0, told=Told.of(Controls(**wish), tables, read[:size], ())
        )
        for size, wish in (
            (13, {"target": "density=2"}),
            (13, {"target": "register=80"}),
            (9, {"follow": False}),
        )
    ]
    with torch.inference_mode():
        engine = DecodeEngine(model, sequences)
        for token in read[13:22]:
            for sequence in sequences:
                sequence.add(token, is_lead=False, illegal=0.0, seconds=0.0)
            engine.read(sequences, range(3))
        for row, sequence in enumerate(sequences):
            ids = torch.tensor([sequence.tail(100)])
            told = torch.from_numpy(sequence.told_of_tail(100))[None]
            whole = model(ids, conditions=told)[0, -1]
            np.testing.assert_allclose(engine.logits[row], whole.numpy(), atol=2e-5)


def test_a_piece_that_goes_back_is_told_the_same_again(composer: MusicGenerator) -> None:
    tables = composer.conditions
    assert tables is not None
    read = [composer.tokenizer.bos_id, *composer.tokenizer.encode(SCALE).tolist()]

    def fresh() -> SequenceState:
        return SequenceState(read, index=0, until=9.0, told=Told.of(Controls(), tables, read, ()))

    with torch.inference_mode():
        straight, back = fresh(), fresh()
        engine = DecodeEngine(composer.loaded.model, [straight])
        for token in read[1:7]:
            straight.add(token, is_lead=False, illegal=0.0, seconds=0.0)
            back.add(token, is_lead=False, illegal=0.0, seconds=0.0)
            engine.read([straight], [0])
        back.add(read[9], is_lead=False, illegal=0.0, seconds=0.0)
        back.rewind(6)
        again = DecodeEngine(composer.loaded.model, [back])
    np.testing.assert_allclose(again.logits, engine.logits, atol=2e-5)


def test_another_model_refuses_what_it_cannot_be_asked_for(tmp_path: Path) -> None:
    plain = MusicGenerator.load(written_model(tmp_path / "plain"))
    some = MusicGenerator.load(written_model(tmp_path / "some", conditions=("density",)))
    with pytest.raises(
        UserError, match=r"polyphony: needs a model .* condition polyphony, got one with none"
    ):
        pieces(plain, [SCALE], polyphony=1.0)
    with pytest.raises(UserError, match=r"target: needs .* condition loudness, got one with density"):
        pieces(some, [SCALE], target="density=4,loudness=60")
    assert pieces(some, [SCALE], target="density=4")[0].valid
    pulled = [pieces(some, [SCALE] * 4, loudness=wish, follow=False) for wish in (2.0, -2.0)]
    for up, down in zip(*pulled, strict=True):
        assert up.new.velocity.mean() > down.new.velocity.mean(), "what it is not told still pulls"


def test_what_is_no_target_is_refused() -> None:
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
    assert fault.where == "density" and "beside a target" in fault.rule
    assert Controls(target="density=5, register=60.5").targets == {"density": 5.0, "register": 60.5}
    request = build_request({"target": {"density": 5, "loudness": 60}, "follow": False}, has_prompt=True)
    assert request.controls == Controls(target="density=5,loudness=60", follow=False)
