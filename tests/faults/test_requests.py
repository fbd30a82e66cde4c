"""Arbitrary requests to a served model: it answers with music, or with a reason and a 4xx status; never with
500, a traceback, or other data.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import strategies as st
from small_models import SCALE, written_model

from coma_gen.core.errors import UserError
from coma_gen.generation.request import Request
from coma_gen.midi.io import midi_bytes
from coma_gen.serving.app import Message, RequestGuard
from coma_gen.serving.schema import MIDI, SETTINGS, Limits, parse_request
from coma_gen.tracking.registry import register_model
from coma_gen.tracking.run_sync import find_or_start_run
from coma_gen.tracking.store import open_store
from faults.budgets import BOTH_FORMS, Form, search
from faults.mutations import mutated
from tracking.conftest import OF_MLFLOW, _own_address  # noqa: F401 - pytest finds it here

pytestmark = [pytest.mark.filterwarnings(warning) for warning in OF_MLFLOW]
Tally = Callable[[str, str, int], None]
Ask = Callable[[bytes], tuple[int, bytes]]
LIMITS = Limits(max_seconds=2.0, max_tokens=12, max_pieces=2, max_prompt_bytes=4000)
PROMPT = midi_bytes(SCALE)

NUMBERS = st.one_of(
    st.integers(),
    st.integers(-3, 70),
    st.floats(),
    st.sampled_from([0, -0.0, 1e-320, 1e308, 2**53, 2**63, 2**64, 10**400, float("nan"), float("inf")]),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=20)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
PROMPTS = st.one_of(
    mutated(PROMPT).map(lambda content: base64.b64encode(content).decode()),
    mutated(base64.b64encode(PROMPT)).map(lambda content: content.decode("latin-1")),
    st.just(base64.b64encode(PROMPT).decode()),
    VALUES,
)
ROWS = st.one_of(
    st.fixed_dictionaries({}, optional={MIDI: PROMPTS} | dict.fromkeys(SETTINGS, NUMBERS)),
    st.dictionaries(st.sampled_from([MIDI, *SETTINGS, "secnds", "", "\0", "__class__"]), VALUES, max_size=4),
)
REQUESTS = st.lists(ROWS | VALUES, max_size=3)
GOOD = [
    json.dumps({"inputs": [row]}).encode()
    for row in (
        {"midi": base64.b64encode(PROMPT).decode(), "seconds": 1.5, "seed": 3, "top_p": 0.9, "top_k": 5},
        {"seconds": None, "tokens": 9, "temperature": 0, "num": 2, "min_p": 0.1, "max_empty_bars": 2},
    )
]


@pytest.mark.parametrize("form", BOTH_FORMS)
def test_no_row_is_taken_that_is_out_of_bounds(form: Form, tally: Tally) -> None:
    def check(rows: object) -> None:
        try:
            understood = parse_request(rows, LIMITS)
        except UserError as error:
            assert len(str(error).splitlines()) == len(error.faults)
            assert all(fault.where.startswith("inputs") for fault in error.faults)
            return
        assert isinstance(rows, list) and len(understood) == len(rows)
        assert sum(each.request.num for each in understood) <= LIMITS.max_pieces
        for row, each in zip(rows, understood, strict=True):
            assert each.request.faults() == [] and each.request.max_tokens <= LIMITS.max_tokens
            assert each.request.seconds is None or each.request.seconds <= LIMITS.max_seconds
            assert set(row) <= {MIDI, *SETTINGS}
            for name in set(row) - {MIDI}:
                assert row[name] is None or getattr(each.request, name) == row[name]

    times = search(check, st.one_of(REQUESTS, VALUES), form, batch=300, of=2)
    tally("a request of any rows", "within all bounds as it was asked, or refused by row and key", times)


@pytest.fixture(scope="module")
def ask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ask]:
    """Sends a body through the guard to MLflow's app around a registered model; gives status and answer.

    To make one takes so long that the short forms do without.
    """
    import mlflow
    from mlflow.pyfunc.scoring_server import init

    home = tmp_path_factory.mktemp("serving")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        store = open_store(home)
        run_id = find_or_start_run(store, key="a-1", name="a")
        register_model(store, run_id, folder=written_model(home / "made"), score=None)
        mlflow.set_tracking_uri(store.address.uri)
        limits = {name: getattr(LIMITS, name) for name in LIMITS.__dataclass_fields__}
        model = mlflow.pyfunc.load_model("models:/coma-gen/1", model_config=limits)
        mlflow.set_tracking_uri(None)
    guard, loop = RequestGuard(init(model), max_body_bytes=LIMITS.max_body_bytes), asyncio.new_event_loop()
    headers = [(b"host", b"127.0.0.1:5001"), (b"content-type", b"application/json")]
    scope: dict[str, Any] = {
        "type": "http", "method": "POST", "path": "/invocations", "headers": headers, "query_string": b"",
    }  # fmt: skip

    def answer(body: bytes) -> tuple[int, bytes]:
        sent: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            sent.append(message)

        loop.run_until_complete(guard(dict(scope), receive, send))
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent)

    yield answer
    loop.run_until_complete(loop.shutdown_default_executor())
    loop.close()


def proven(status: int, content: bytes) -> None:
    """An answer is music or a reason."""
    told = json.loads(content)
    if status == 200:
        for piece in told["predictions"]:
            assert base64.b64decode(piece["midi"], validate=True).startswith(b"MThd")
        return
    assert status in (400, 413), content
    assert list(told) == ["error"] and told["error"] and "Traceback" not in told["error"]
    assert len(content) < 20_000


@pytest.mark.faults
def test_good_ones_are_answered(ask: Ask) -> None:
    assert [ask(body)[0] for body in GOOD] == [200, 200]
    assert Request().faults() == []


@pytest.mark.parametrize("form", BOTH_FORMS[1:])
def test_no_body_breaks_the_server(form: Form, ask: Ask, tally: Tally) -> None:
    bodies = st.one_of(REQUESTS.map(lambda rows: {"inputs": rows}), VALUES).map(json.dumps).map(str.encode)
    times = search(lambda body: proven(*ask(body)), st.one_of(mutated(*GOOD), bodies), form, batch=60, of=2)
    tally(
        "a request's body of any JSON, or with bytes changed, cut, doubled or moved",
        "music, or 4xx with a reason",
        times,
    )
