"""Pairing note-ons with note-offs of one key, including overlapping notes."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from coma_gen.midi.note_pairing import pair_key

Happened = list[tuple[int, bool]]
events = st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=12).map(
    lambda steps: [(sum(gap for gap, _ in steps[: index + 1]), on) for index, (_, on) in enumerate(steps)]
)


def pairs_of(happened: Happened) -> list[tuple[int, int, bool]]:
    return sorted(pair_key([tick for tick, _ in happened], [on for _, on in happened]))


def most_ends(happened: Happened) -> int:
    """How many notes can have a release of their own: each release takes one from its tick or before."""
    waiting, most = 0, 0
    for tick in sorted({tick for tick, _ in happened}):
        waiting += sum(on for at, on in happened if at == tick)
        ended = min(waiting, sum(not on for at, on in happened if at == tick))
        waiting, most = waiting - ended, most + ended
    return most


@settings(max_examples=400)
@given(events)
def test_as_many_notes_as_can_be_have_a_release_of_their_own(happened: Happened) -> None:
    pairs = pairs_of(happened)
    assert [on for on, _, _ in pairs] == [index for index, (_, on) in enumerate(happened) if on]
    own = [off for _, off, is_own in pairs if is_own]
    assert len(set(own)) == len(own) == most_ends(happened)
    for on, off, is_own in pairs:
        assert off < 0 or happened[off][0] >= happened[on][0]
        if off >= 0 and not is_own:  # it ends where its key is next released
            assert not any(not on_ and happened[on][0] < tick < happened[off][0] for tick, on_ in happened)
        if off < 0:
            assert not any(not on_ and tick > happened[on][0] for tick, on_ in happened)


@settings(max_examples=200)
@given(events)
def test_where_each_release_follows_its_note_the_first_in_is_the_first_out(happened: Happened) -> None:
    depth, balanced = 0, True
    for _, on in happened:
        depth += 1 if on else -1
        balanced = balanced and depth >= 0
    if balanced and depth == 0:
        ons, offs = (
            [index for index, (_, on) in enumerate(happened) if on is kind] for kind in (True, False)
        )
        ticks = [(on, happened[off][0]) for on, off, _ in pairs_of(happened)]
        assert ticks == [(on, happened[off][0]) for on, off in zip(ons, offs, strict=True)]


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9), st.booleans()), min_size=1, max_size=10))
def test_notes_behind_one_without_a_release_keep_their_own(notes: list[tuple[int, int, bool]]) -> None:
    happened: Happened = []
    expected = []
    tick = 0
    for gap, length, is_double in notes:
        tick += gap
        starts = [tick, tick] if is_double else [tick]
        expected += [(start, tick + length) for start in starts]
        happened += [(start, True) for start in starts] + [(tick + length, False)]
        tick += length
    assert [(happened[on][0], happened[off][0]) for on, off, _ in pairs_of(happened)] == expected


def test_many_odd_events_of_one_key_take_no_time() -> None:
    """A release too early at every tick, and one left over at the end that undoes them all."""
    happened = [(tick, on) for tick in range(20_000) for on in (False, True)] + [(20_000, False)]
    assert pairs_of(happened)[:2] == [(1, 2, True), (3, 4, True)]
