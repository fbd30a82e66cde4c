"""The page's HTTP paths: inspect, continue, play and pack; errors give a reason."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import re
import wave
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from midi_builder import note, smf, track
from small_models import SCALE, written_model
from starlette.testclient import TestClient

from coma_gen.core.errors import UserError
from coma_gen.generation.express import express_midi
from coma_gen.generation.generate import continue_midi, generate_request
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import Request
from coma_gen.generation.touch import TouchRequest
from coma_gen.midi.io import midi_bytes, read_notes
from coma_gen.midi.notes import Notes
from coma_gen.midi.prompt import read_prompt
from coma_gen.play import progress as progress_module
from coma_gen.play import studio as studio_module
from coma_gen.play.app import build_app
from coma_gen.play.jobs import StoppedError
from coma_gen.play.prompts import PROMPTS
from coma_gen.play.studio import Studio
from coma_gen.serving.app import Message
from coma_gen.serving.schema import Limits

SONG = midi_bytes(SCALE)
TEXT = base64.b64encode(SONG).decode()
SILENT = smf(track())
HERE = "http://127.0.0.1:8000"


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(build_app(studio), base_url=HERE) as opened:
        yield opened


def events(client: TestClient, path: str = "/continue", **asked: Any) -> list[dict[str, Any]]:
    """The events of a request, without pulses."""
    answer = client.post(path, json=asked)
    assert answer.status_code == 200, answer.text
    return [event for event in map(json.loads, answer.text.splitlines()) if event]


def test_the_page_is_whole_and_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "unsafe" not in policy and "//" not in policy
    parts = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
    assert len(parts) == 7
    texts = [page.text]
    for part in parts:
        answer = client.get(part)
        assert answer.status_code == 200 and answer.headers["x-content-type-options"] == "nosniff"
        texts.append(answer.text)
    assert not [text for text in texts if re.search(r"https?://|@import|url\(", text)]


def test_it_says_what_model_plays_and_within_what_limits(client: TestClient, studio: Studio) -> None:
    about = client.get("/about").json()
    assert about["model"]["name"] == studio.model
    assert about["model"]["digest"] == studio.composer.loaded.manifest.digest
    assert about["limits"]["max_seconds"] == 20.0 and about["limits"]["max_pieces"] == 3


@pytest.mark.parametrize("name", PROMPTS)
def test_the_prompts_are_our_own(client: TestClient, name: str) -> None:
    content = client.get(f"/prompts/{name}.mid").content
    assert content == midi_bytes(PROMPTS[name]())
    assert len(client.post("/look", json={"midi": base64.b64encode(content).decode()}).json()["notes"]) > 50


@pytest.mark.parametrize(
    ("headers", "content", "status", "reason"),
    [
        ({"host": "evil.example"}, b"{}", 403, "Host must be one of 127.0.0.1, localhost"),
        ({"origin": "http://evil.example"}, b"{}", 403, "Origin must be this server"),
        ({"origin": "http://127.0.0.1:9999"}, b"{}", 403, "Origin must be this server"),
        ({"origin": "null"}, b"{}", 403, "Origin must be this server"),
        ({"content-type": "text/plain"}, b"{}", 415, "Content-Type must be application/json"),
        ({}, b"{", 400, "the body must be JSON"),
        ({}, b"[]", 400, "the body must be an object"),
        ({}, b" " * 100_000, 413, "a request must have at most"),
    ],
)
@pytest.mark.parametrize("path", ["/look", "/continue", "/express", "/sound", "/archive"])
def test_the_request_guard_is_that_of_the_server(
    client: TestClient, path: str, headers: dict[str, str], content: bytes, status: int, reason: str
) -> None:
    answer = client.post(path, headers={"content-type": "application/json"} | headers, content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert answer.json()["error"].startswith(reason)
    assert answer.status_code == 200 or client.get("/", headers={"origin": HERE}).status_code == 200


def test_a_look_tells_the_notes_and_what_is_left_out(client: TestClient) -> None:
    found = client.post("/look", json={"midi": TEXT, "name": "scale.mid"}).json()
    assert found["notes"][3] == [1.5, pytest.approx(0.4, abs=1e-3), 63, 63]
    assert (len(found["notes"]), found["last"], found["drums"]) == (12, 5.5, 0)
    assert found["end"] == pytest.approx(5.9, abs=1e-3)
    content = smf(track(*note(0, 480), *note(480, 960, 35, channel=9)))
    found = client.post("/look", json={"midi": base64.b64encode(content).decode()}).json()
    assert (len(found["notes"]), found["drums"]) == (1, 1)


@pytest.mark.parametrize("path", ["/look", "/continue"])
@pytest.mark.parametrize("content", [b"", b"RIFF", SONG[:40], SILENT], ids=["empty", "RIFF", "cut", "silent"])
def test_a_bad_file_is_refused_in_the_words_of_the_command_line(
    client: TestClient, path: str, content: bytes
) -> None:
    with pytest.raises(UserError) as known:
        read_prompt(content, name="song.mid")
    answer = client.post(path, json={"midi": base64.b64encode(content).decode(), "name": "song.mid"})
    *_, last = map(json.loads, answer.text.splitlines())
    assert last["error"] == str(known.value)


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"seconds": 21}, "seconds: must be at most 20.0 here, got 21.0"),
        ({"num": 4}, "num: must be at most 3 here, and so must best_of, got 4"),
        ({"temperature": "hot"}, "temperature: must be a number, got text"),
        ({"secnds": 3}, "secnds: must be one of midi, seconds"),
        ({"midi": "***", "name": "my.mid"}, "my.mid: must be a MIDI file of at most 3,000 bytes"),
        ({"midi": "A" * 5000, "name": "my.mid"}, "my.mid: must be a MIDI file of at most 3,000 bytes"),
        ({"name": "x" * 121}, "name: must be a text of at most 120 characters"),
        ({"from_second": 2}, "from_second: is for a row with midi only"),
    ],
)
def test_what_is_beyond_the_limits_is_refused_by_name(
    client: TestClient, asked: dict[str, Any], reason: str
) -> None:
    answer = client.post("/continue", json=asked)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


def test_pieces_are_those_of_the_library_to_the_byte_and_come_while_they_are_made(
    client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "REPORT_SECONDS", 0.0)
    asked = {"seconds": 3.0, "num": 2, "seed": 5, "temperature": 0.9}
    answers = events(client, midi=TEXT, name="scale.mid", **asked)
    pieces = answers[-1]["pieces"]
    made = [base64.b64decode(piece["midi"]) for piece in pieces]
    settings = Request(**asked, tokens=studio.limits.max_tokens)
    assert made == continue_midi(studio.composer, SONG, settings, name="scale.mid")
    (begun,) = (event["begun"] for event in answers if "begun" in event)
    assert (begun["start"], begun["splice"], len(begun["notes"])) == (0.0, 5.5, 12)
    shown: list[list[list[float]]] = [[], []]
    progress = [event["progress"] for event in answers if "progress" in event]
    for parts in progress:
        for number, part in enumerate(parts):
            earlier = [row for row in shown[number] if part["from"] is None or row[0] < part["from"] - 0.001]
            shown[number] = earlier + part["notes"]
    assert len(progress) > 20
    for number, piece in enumerate(pieces):
        # A later note of the same key may cut one short.
        at_last = [[onset, *rest] for onset, _duration, *rest in piece["notes"]]
        assert [[onset, *rest] for onset, _duration, *rest in shown[number]] == at_last
        assert len(piece["notes"]) == len(read_notes(made[number])) - 12
        seconds = [parts[number]["seconds"] for parts in progress]
        assert seconds == sorted(seconds) and seconds[-1] <= 3.0


def test_touches_are_those_of_the_library_to_the_byte_and_come_while_they_are_played(
    client: TestClient, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress_module, "REPORT_SECONDS", 0.0)
    asked = {"num": 2, "seed": 5, "temperature": 0.9, "timing": 45, "keep_lengths": True}
    answers = events(client, "/express", midi=TEXT, name="scale.mid", **asked)
    made = [base64.b64decode(piece["midi"]) for piece in answers[-1]["pieces"]]
    played = express_midi(studio.composer, SONG, name="scale.mid", request=TouchRequest(**asked))
    assert made == [each.midi for each in played]
    assert [len(piece["notes"]) for piece in answers[-1]["pieces"]] == [12, 12]
    (begun,) = (event["begun"] for event in answers if "begun" in event)
    assert (begun["splice"], begun["notes"], begun["seconds"]) == (None, [], pytest.approx(5.9, abs=1e-3))
    seconds = [event["progress"][1]["seconds"] for event in answers if "progress" in event]
    assert len(seconds) > 20 and seconds == sorted(seconds)
    options = "--seed 5 --num 2 --temperature 0.9 --timing 45 --keep-lengths"
    assert answers[-1]["command"] == f"coma-gen express scale.mid {options} --model {studio.model}"


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({"timing": 101}, "timing: must be 0 to 100 milliseconds, got 101"),
        ({"num": 4}, "num: must be at most 3 here, got 4"),
        ({"num": 0}, "num: must be 1 to 256, got 0"),
        ({"keep_lengths": 1}, "keep_lengths: must be true or false"),
        ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
        ({"seconds": 3}, "seconds: must be one of midi, seed"),
        ({"midi": None, "name": "my.mid"}, "my.mid: must be a MIDI file of at most 3,000 bytes"),
    ],
)
def test_a_touch_that_may_not_be_asked_for_is_refused_by_name(
    client: TestClient, asked: dict[str, Any], reason: str
) -> None:
    answer = client.post("/express", json={"midi": TEXT} | asked)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(reason)


def test_the_command_says_what_is_not_by_default(client: TestClient, studio: Studio) -> None:
    start = "coma-gen generate"
    model = f"--model {studio.model}"
    assert events(client, seconds=2, seed=3)[-1]["command"] == f"{start} --seconds 2 --seed 3 {model}"
    asked = {
        "midi": TEXT,
        "name": "my song.mid",
        "from_second": 1.25,
        "prompt_seconds": 2,
        "temperature": 0.8,
    }
    command = events(client, **asked, seconds=2.5, num=3)[-1]["command"]
    assert command.startswith(f"{start} 'my song.mid' --seconds 2.5 --num 3 --seed 0 --temperature 0.8 ")
    assert command.endswith(f"--from-second 1.25 --prompt-seconds 2 {model}")
    assert "--tokens 30" in events(client, tokens=30)[-1]["command"]
    assert f"--tokens {studio.limits.max_tokens}" not in command


def test_a_long_prompt_is_shown_from_ten_seconds_before_its_end(client: TestClient, studio: Studio) -> None:
    times = [2.0 * step for step in range(20)]
    song = midi_bytes(Notes.of(times, [1.0] * 20, [60] * 20, [64] * 20))
    answers = events(client, midi=base64.b64encode(song).decode(), seconds=1)
    (begun,) = (event["begun"] for event in answers if "begun" in event)
    assert (begun["start"], begun["splice"]) == (28.0, 38.0)
    assert [row[0] for row in begun["notes"]] == [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    assert all(row[0] > 10.0 for row in answers[-1]["pieces"][0]["notes"])


@pytest.mark.parametrize(
    ("asked", "seconds"),
    [({}, 5.9), ({"from": 3.0}, 2.9), ({"to": 3.0}, 2.9), ({"from": 1.0, "to": 3.0}, 1.9)],
)
def test_sound_is_that_of_the_notes_between(
    client: TestClient, asked: dict[str, float], seconds: float
) -> None:
    flac = client.post("/sound", json={"midi": TEXT, "name": "scale.mid", **asked})
    assert flac.headers["content-type"] == "audio/flac"
    samples, rate = soundfile.read(io.BytesIO(flac.content))
    whole = client.post("/sound", json={"midi": TEXT, "kind": "wav", **asked})
    with wave.open(io.BytesIO(whole.content)) as file:
        assert (file.getframerate(), file.getnframes()) == (rate, len(samples))
    tail = len(samples) / rate - seconds
    assert 0 < tail < 4 and np.abs(samples).max() > 0.01


@pytest.mark.parametrize(
    ("asked", "reason"),
    [
        ({}, "the piece: must be a MIDI file as base64 text"),
        ({"midi": TEXT, "kind": "mp3"}, "kind: must be one of flac, wav"),
        ({"midi": TEXT, "from": -1}, "from, to: must be seconds of the file"),
        ({"midi": TEXT, "to": "x"}, "from, to: must be seconds of the file"),
        ({"midi": TEXT, "name": 5}, "name: must be a text"),
    ],
)
def test_sound_of_what_is_none_is_refused(client: TestClient, asked: dict[str, Any], reason: str) -> None:
    answer = client.post("/sound", json=asked)
    assert answer.status_code == 400 and answer.json()["error"].startswith(reason)


def test_sound_is_not_made_of_hours(client: TestClient) -> None:
    long = midi_bytes(Notes.of([0.0, 3000.0], [1.0, 1.0], [60, 60], [64, 64]))
    answer = client.post("/sound", json={"midi": base64.b64encode(long).decode(), "name": "long.mid"})
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(
        "long.mid: must last at most 1,800 s to be played here, got 3,001"
    )


def test_everything_comes_as_one_file(client: TestClient) -> None:
    pieces = [{"midi": TEXT, "name": name, "splice": 3.0} for name in ("a.mid", "../a.mid")]
    answer = client.post("/archive", json={"pieces": pieces, "command": "coma-gen generate"})
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as file:
        names = ["a.mid", "a.png", "a.flac", "a-2.mid", "a-2.png", "a-2.flac", "command.txt"]
        assert file.namelist() == names
        assert file.read("a-2.mid") == SONG and file.read("command.txt") == b"coma-gen generate\n"
        assert file.read("a.png").startswith(b"\x89PNG") and file.read("a.flac").startswith(b"fLaC")
    again = client.post("/archive", json={"pieces": pieces, "command": "coma-gen generate"})
    assert again.content == answer.content


@pytest.mark.parametrize("pieces", [None, [], [1], [{}] * 4, [{}]])
def test_an_archive_of_nothing_is_refused(client: TestClient, pieces: object) -> None:
    assert client.post("/archive", json={"pieces": pieces}).status_code == 400


def test_a_client_that_leaves_ends_its_work(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    ends: list[str] = []

    def followed(*given: Any, **named: Any) -> Any:
        try:
            made = generate_request(*given, **named)
        except StoppedError:
            ends.append("stopped")
            raise
        ends.append("finished")
        return made

    monkeypatch.setattr(studio_module, "generate_request", followed)
    monkeypatch.setattr(progress_module, "REPORT_SECONDS", 0.0)
    body = json.dumps({"midi": TEXT, "seconds": 20, "num": 3}).encode()

    async def run() -> None:
        left = asyncio.Event()
        parts: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def receive() -> Message:
            if parts:
                return parts.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if b"progress" in message.get("body", b""):
                left.set()

        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/continue",
            "headers": headers,
            "query_string": b"",
        }
        async with asyncio.timeout(60):
            await build_app(studio)(scope, receive, send)
            while not ends:
                await asyncio.sleep(0.01)

    asyncio.run(run())
    assert ends == ["stopped"]


def test_a_model_with_conditions_says_so_and_its_command_repeats_the_wishes(tmp_path: Path) -> None:
    composer = MusicGenerator.load(written_model(tmp_path, conditions=("density",)))
    studio = Studio(composer, "told", Limits(max_seconds=20.0))
    assert studio.facts["conditions"] == ["density"]
    with TestClient(build_app(studio), base_url=HERE) as client:
        asked = {"midi": TEXT, "name": "a.mid", "seconds": 2, "seed": 3}
        wishes = {"follow": False, "density": 1, "target": None, "polyphony": None}
        last = events(client, **asked, **wishes)[-1]
        assert " --density 1 --no-follow" in last["command"]
        assert " --target density=3" in events(client, **asked, target="density=3")[-1]["command"]
        refused = events(client, **asked, polyphony=1)[-1]["error"]
        assert refused.startswith("polyphony: needs a model that was trained with the condition polyphony")
