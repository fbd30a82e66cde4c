"""The commands `generate`, `render` and `inspect`, and their errors."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import symusic
from midi_builder import Event, note, pedal, program, smf, tempo, track
from midi_situations import SITUATIONS
from small_models import written_model
from subprocess_utils import run
from tiny_soundfont import tiny_soundfont

import coma_gen.report.export
from coma_gen.audio.level import measure_level
from coma_gen.cli.main import main
from coma_gen.core.free_names import free_folder
from coma_gen.generation.request import Request
from coma_gen.midi import io as midi
from coma_gen.midi.io import read_notes

ROOT = Path(__file__).resolve().parents[1]
SHORT = ("--seconds", "2", "--tokens", "120")


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("model"))


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder outside of any checkout, with a file of a band in it, and all that is no music."""
    kit: list[Event] = [(0, b"\xff\x03\x03Kit"), *note(0, 9, 36, channel=9), *note(240, 249, 38, channel=9)]
    lead = [program(0, 40, 3), *note(100, 400, 67, channel=3), *note(480, 700, 5, channel=3)]
    hands = [tempo(0, 600_000), pedal(0, 127), pedal(470, 0), *note(0, 480), *note(480, 960, 64)]
    (tmp_path / "band.mid").write_bytes(smf(track(*hands), track(*lead), track(*kit)))
    (tmp_path / "empty.mid").touch()
    (tmp_path / "text.mid").write_text("C D E F")
    with (tmp_path / "huge.mid").open("wb") as huge:
        huge.write(b"MThd")
        huge.truncate(2**20 + 1)
    (tmp_path / "cut.mid").write_bytes((tmp_path / "band.mid").read_bytes()[:60])
    (tmp_path / "silence.mid").write_bytes(smf(track()))
    (tmp_path / "kit.mid").write_bytes(smf(track(*kit)))
    (tmp_path / "folder.mid").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


def ended(*arguments: object) -> object:
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


def refusal(capfd: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What a command says that ends badly: one line, beginning with its name."""
    code = ended(*arguments)
    text = capfd.readouterr().err if code == 2 else str(code)
    assert code not in (0, None) and len(text.strip().splitlines()) == 1 and text.startswith("coma-gen")
    return text


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_from_nothing_each_piece_has_picture_and_sound_and_can_be_repeated(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended("generate", "--model", model, *SHORT, "--num", 2, "--seed", 7) == 0
    told = capfd.readouterr().out
    assert "generated/from-nothing/piece-02.mid: " in told and "to reproduce them: --seed 7 (" in told
    assert "to hear and see them: generated/from-nothing/index.html\n" in told
    first = contents(cwd / "generated" / "from-nothing")
    names = {f"piece-{number:02d}.{ending}" for number in (1, 2) for ending in ("mid", "png", "flac")}
    assert set(first) == names | {"settings.json", "index.html"}
    assert first["piece-01.mid"] != first["piece-02.mid"]
    sound, rate = soundfile.read(cwd / "generated/from-nothing/piece-01.flac")
    assert len(sound) / rate > read_notes(first["piece-01.mid"]).end_of_onsets
    settings = json.loads(first["settings.json"])
    assert settings["settings"]["seed"] == 7 and settings["prompt"] is None
    assert str(cwd).encode() not in first["settings.json"]
    again = shlex.split(settings["command"])[1:]
    assert ended(*again, "--model", model, "--out", "again") == 0
    assert contents(cwd / "again") == first
    assert ended(*again, "--model", model, "--out", "other", "--seed", 8, "--audio", "none") == 0
    other = contents(cwd / "other")
    assert other["piece-01.mid"] != first["piece-01.mid"] and "piece-01.flac" not in other
    assert b"<audio" in first["index.html"] and b"<audio" not in other["index.html"]


def test_each_try_has_a_seed_and_a_name_of_its_own(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = iter((11, 12))
    monkeypatch.setattr("secrets.randbelow", lambda _bound: next(drawn))
    quick = ("generate", "band.mid", "--model", model, *SHORT, "--audio", "none")
    for folder, seed in (("generated/band", 11), ("generated/band-02", 12)):
        assert ended(*quick) == 0
        told = capfd.readouterr().out
        assert f"{folder}/band-continued-01.mid: " in told and f"to reproduce them: --seed {seed} (" in told
        assert json.loads((cwd / folder / "settings.json").read_text())["settings"]["seed"] == seed
    one, other = (contents(cwd / "generated" / name) for name in ("band", "band-02"))
    assert one["band-continued-01.mid"] != other["band-continued-01.mid"]
    again = shlex.split(json.loads(other["settings.json"])["command"])[1:]
    assert ended(*again, "--model", model, "--out", "again") == 0
    assert contents(cwd / "again") == other


def test_what_a_piece_does_not_need_is_not_imported(cwd: Path, model: Path) -> None:
    slow = "{'miditok', 'sympy', 'torch._dynamo', 'torch._inductor', 'mlflow', 'dvc', 'pandas'}"
    words = ["coma-gen", "generate", "band.mid", "--model", str(model), *SHORT]
    script = f"""
import atexit, sys
atexit.register(lambda: print("slow:", sorted({slow} & set(sys.modules))))
sys.argv = {words!r}
from coma_gen.cli.main import main
main()
"""
    assert "slow: []" in run(cwd, sys.executable, "-c", script)


def test_only_what_is_new(cwd: Path, model: Path) -> None:
    quick = ("generate", "band.mid", "--model", model, *SHORT, "--seed", 3, "--instrument", "flute")
    assert ended(*quick, "--out", "whole") == 0
    assert ended(*quick, "--only-new", "--out", "new", "--audio", "wav") == 0
    whole, new = (contents(cwd / folder) for folder in ("whole", "new"))
    splice = json.loads(whole["settings.json"])["pieces"][0]["splice_seconds"]
    all_notes, notes = (read_notes(each["band-continued-01.mid"]) for each in (whole, new))
    np.testing.assert_allclose(notes.onset + splice, all_notes.onset[-len(notes) :], atol=0.001)
    assert len(all_notes) == len(notes) + 4
    assert symusic.Score.from_midi(new["band-continued-01.mid"]).tracks[0].program == 73
    sound, rate = soundfile.read(cwd / "new" / "band-continued-01.wav")
    assert len(sound) / rate < notes.end + 3
    command = json.loads(new["settings.json"])["command"]
    assert " --only-new --instrument 73" in command
    assert ended(*shlex.split(command)[1:], "--model", model, "--out", "again") == 0
    assert contents(cwd / "again") == new


@pytest.mark.parametrize(("time", "notes"), [("0.4", 2), ("0:00.4", 2), ("1.1", 4)])
def test_a_time_to_go_on_from(cwd: Path, model: Path, time: str, notes: int) -> None:
    few = ("--seconds", "1", "--tokens", "8", "--audio", "none", "--out", "part")
    assert ended("generate", "band.mid", "--model", model, "--from", time, *few) == 0
    settings = json.loads((cwd / "part" / "settings.json").read_text())
    assert settings["pieces"][0]["prompt_notes"] == notes
    assert f"--from {settings['settings']['until_second']}" in settings["command"]


def test_two_runs_at_once_each_get_a_folder(cwd: Path) -> None:
    with free_folder(Path("a/b")) as one, free_folder(Path("a/b")) as other:
        (one[0] / "1").touch()
        (other[0] / "2").touch()
    assert (one[-1], other[-1]) == (Path("a/b-02"), Path("a/b"))
    assert (cwd / "a/b-02/1").exists() and (cwd / "a/b/2").exists()
    assert {path.name for path in (cwd / "a").iterdir()} == {"b", "b-02"}


def test_what_a_killed_run_left_is_removed_and_nothing_else(cwd: Path) -> None:
    (cwd / ".unfinished.old").mkdir()
    with free_folder(Path("one")) as one:
        assert not (cwd / ".unfinished.old").exists()
        with free_folder(Path("two")) as two:
            (two[0] / "2").touch()
        assert one[0].exists()
    with pytest.raises(OSError, match="full"), free_folder(Path("three")):
        raise OSError("full")
    assert not list(cwd.glob(".unfinished.*")) and not (cwd / "three").exists()


def test_a_prompt_of_any_kind_is_continued_in_its_own_file(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended("generate", "band.mid", "--model", model, *SHORT, "--out", "new/er") == 0
    told = capfd.readouterr().out
    assert (
        "prompt: 4 notes" in told and "ignored by the model: 2 notes of drums (they stay in the file)" in told
    )
    assert "1 notes outside of pitch 21 to 108" in told
    before, after = (
        symusic.Score.from_midi((cwd / name).read_bytes())
        for name in ("band.mid", "new/er/band-continued-01.mid")
    )
    assert [each.name for each in after.tracks] == ["", "", "Kit", "Continuation"]
    for ours, theirs in zip(after.tracks, before.tracks, strict=False):
        assert [(n.time, n.duration, n.pitch, n.velocity) for n in ours.notes] == [
            (n.time, n.duration, n.pitch, n.velocity) for n in theirs.notes
        ]
    assert [(each.time, each.mspq) for each in after.tempos] == [(0, 600_000)]
    assert min(n.time for n in after.tracks[3].notes) > 480
    piece = json.loads((cwd / "new/er/settings.json").read_text())["pieces"][0]
    assert piece["prompt_notes"] == 4 and piece["splice_seconds"] == 0.6
    assert piece["new_notes"] == len(after.tracks[3].notes)
    assert ended("render", "new/er/band-continued-01.mid", "--out", "seen") == 0
    assert (
        contents(cwd / "seen")["band-continued-01.flac"] == contents(cwd / "new/er")["band-continued-01.flac"]
    )


def test_a_part_of_the_prompt(cwd: Path, model: Path) -> None:
    cut = ("--from-second", "0.3", "--prompt-seconds", "0.2", "--audio", "none")
    assert ended("generate", "band.mid", "--model", model, *SHORT, *cut, "--out", "part") == 0
    settings = json.loads((cwd / "part" / "settings.json").read_text())
    assert settings["pieces"][0]["prompt_notes"] == 2
    assert "--from-second 0.3 --prompt-seconds 0.2" in settings["command"]


def test_the_best_of_several_tells_what_all_cost_and_repeats(cwd: Path, model: Path) -> None:
    asked = ("--prompt", "band.mid", "--model", model, "--audio", "none")
    ways = ("--best-of", 3, "--top-p", 0.9, "--truncate", "pitch,position", "--max-rewinds", 2)
    assert ended("generate", *asked, *SHORT, *ways, "--out", "best") == 0
    settings = json.loads((cwd / "best" / "settings.json").read_text())
    assert settings["settings"]["truncate"] == "pitch,position"
    (piece,) = settings["pieces"]
    assert piece["draw"] in (1, 2, 3) and piece["distance_from_prompt"] > 0
    assert piece["tokens_of_all_draws"] > piece["tokens"]
    assert piece["rewinds"] == piece["tokens_redrawn"] == 0
    again = shlex.split(settings["command"])[1:]
    assert ended(*again, "--model", model, "--out", "again") == 0
    assert contents(cwd / "again") == contents(cwd / "best")


def test_in_a_checkout_the_model_is_the_one_that_dvc_trained(
    cwd: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("coma_gen.workspace.pretrained.CANDIDATES", ())
    for name in ("dvc.yaml", "params.yaml"):
        (cwd / name).write_bytes((ROOT / name).read_bytes())
    assert "train one with `dvc repro`" in refusal(capfd, "generate", *SHORT).lower()
    assert "no store there" in refusal(capfd, "generate", "--model", "models:/coma-gen@champion")
    shutil.copytree(model, cwd / "data" / "model")
    assert ended("generate", *SHORT, "--audio", "none", "--out", "made") == 0
    assert ended("inspect", "band.mid") == 0


def test_nothing_half_written_is_left(
    cwd: Path, model: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, _notes: object) -> None:
        raise OSError(28, "No space left on device", str(path))

    before = set(cwd.iterdir())
    monkeypatch.setattr(coma_gen.report.export, "write_sound", full)
    assert "No space left on device" in refusal(capfd, "generate", "--model", model, *SHORT, "--out", "out")
    assert set(cwd.iterdir()) == before


def test_nobodys_files_are_overwritten(cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    quick = ("generate", "--model", model, *SHORT, "--seed", 0, "--audio", "none", "--out")
    assert ended(*quick, "out") == 0
    first = contents(cwd / "out")
    assert ended(*quick, "out") == 0
    assert contents(cwd / "out") == contents(cwd / "out-02") == first
    assert ended(*quick, "out", "--force", "--num", 2) == 0
    assert len(contents(cwd / "out")) == 6
    assert ended(*quick, "out", "--force") == 0
    assert contents(cwd / "out") == first
    (cwd / "out" / "diary.txt").write_text("mine")
    assert "diary.txt in it" in refusal(capfd, *quick, "out", "--force")
    assert ended(*quick, "out") == 0
    assert contents(cwd / "out-03") == first and (cwd / "out" / "diary.txt").exists()
    assert "band.mid: must be a folder" in refusal(capfd, *quick, "band.mid", "--force")
    assert "which is a file" in refusal(capfd, *quick, "band.mid/out")
    (cwd / "mine").mkdir()
    assert ended(*quick, "mine") == 0
    (cwd / ".editor").mkdir()
    (cwd / ".editor" / "settings.json").write_text('{"theme": "dark"}')
    assert "settings.json in it" in refusal(capfd, *quick, ".editor", "--force")


NOT_MUSIC = [
    ("missing.mid", "No such file"),
    ("empty.mid", "an empty file"),
    ("text.mid", "begins with 'MThd'"),
    ("huge.mid", "at most 1 MiB"),
    ("cut.mid", "whole MIDI file"),
    ("folder.mid", "Is a directory"),
    ("silence.mid", "must have notes that are not drums"),
    ("kit.mid", "must have notes that are not drums"),
]


@pytest.mark.parametrize(("name", "words"), NOT_MUSIC)
@pytest.mark.parametrize("command", ["generate", "render", "inspect"])
def test_what_is_no_music_is_refused_in_one_line(
    command: str,
    name: str,
    words: str,
    cwd: Path,
    model: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(midi, "MAX_BYTES", 2**20)
    before = set(cwd.iterdir())
    extra = {"generate": ["--model", model], "render": [], "inspect": ["--model", model]}[command]
    text = refusal(capfd, command, *extra, name)
    assert text.startswith(f"coma-gen: {name}: ") and words in text
    assert set(cwd.iterdir()) == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate", "--seconds", "0"], "--seconds: must be above 0"),
        (["generate", "--seconds", "nan"], "--seconds: must be above 0"),
        (["generate", "--seconds", "soon"], "invalid float value: 'soon'"),
        (["generate", "--num", "0"], "--num: must be 1 to 256"),
        (["generate", "--num", "1.5"], "invalid int value"),
        (["generate", "--seed", "-1"], "--seed: must be at least 0"),
        (["generate", "--temperature", "-1"], "--temperature: must be between 0 and 5"),
        (["generate", "--temperature", "5.1"], "--temperature: must be between 0 and 5"),
        (["generate", "--top-p", "1.5"], "--top-p: must be above 0 and at most 1"),
        (["generate", "--top-k", "0"], "--top-k: must be at least 1"),
        (["generate", "--min-p", "7"], "--min-p: must be between 0 and 1"),
        (["generate", "--max-empty-bars", "-1"], "--max-empty-bars: must be 0 to"),
        (["generate", "--tokens", "0"], "--tokens: must be 1 to"),
        (["generate", "--threads", "0"], "--threads: must be 1 to 1024"),
        (["generate", "--audio", "aiff"], "invalid choice: 'aiff'"),
        (["generate", "--instrument", "kazoo"], "--instrument: must be a General MIDI program: 0 to 127"),
        (["generate", "--instrument", "128"], "--instrument: must be a General MIDI program: 0 to 127"),
        (["generate", "--only-new"], "--only-new: is for a prompt only"),
        (["generate", "--density", "9"], "--density: must be between -3 and 3"),
        (["generate", "--key", "H major"], "--key: must be such as"),
        (["generate", "--from", "9"], "--from: is for a prompt only"),
        (["generate", "band.mid", "--from", "0"], "--from: must be above 0"),
        (["generate", "band.mid", "--from", "1:x"], "'1:x' is not a time such as 1:30 or 90"),
        (["generate", "band.mid", "--from", "1:75"], "'1:75' is not a time such as 1:30 or 90"),
        (["generate", "band.mid", "--from", "5:00"], "--from: must be before the file's end, got 300 s of "),
        (["generate", "band.mid", "--prompt", "band.mid"], "--prompt: must not be given beside another file"),
        (["generate", "--device", "toaster"], "invalid choice: 'toaster'"),
        (["generate", "--shout"], "coma-gen generate does not accept --shout"),
        (["generate", "--best-of", "5"], "--best-of: is for a prompt only"),
        (["generate", "band.mid", "--num", "4", "--best-of", "3"], "--best-of: must be num (4) to 256"),
        (["generate", "--truncate", "notes"], "--truncate: must be some of bar, position"),
        (["generate", "--prompt-seconds", "5"], "--prompt-seconds: is for a prompt only"),
        (["generate", "band.mid", "--from-second", "99"], "at or after second 99"),
        (["generate", "band.mid", "--prompt-seconds", "0"], "--prompt-seconds: must be above 0"),
        (["generate", ""], "Is a directory"),
        (["generate", "--out", ""], "--out: must name a new folder"),
        (["generate", "--model", "nowhere"], "nowhere: must be a model's folder"),
        (["generate", "--model", "text.mid"], "got a file"),
        (["generate", "--model", "folder.mid"], "got a folder without manifest.json"),
        (["generate", "--model", "models:/coma-gen@champion"], "got no store there"),
        (["render"], "the following arguments are required: file"),
        (["render", "band.mid", "--audio", "aiff"], "invalid choice: 'aiff'"),
        (["render", "band.mid", "--out", "text.mid"], "--out: must be a folder"),
        (["inspect", "band.mid"], "must be given outside of a coma-gen checkout"),
        (["inspect", "band.mid", "--tokens", "-1"], "--tokens: must be 0 to"),
        (["inspect", "band.mid", "--model", "folder.mid"], "must be a folder of kind 'tokenizer'"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused_in_one_line(
    arguments: list[str], words: str, cwd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = set(cwd.iterdir())
    assert words in refusal(capfd, *arguments)
    assert set(cwd.iterdir()) == before


def test_every_wrong_option_is_told_at_once(cwd: Path) -> None:
    told = str(ended("generate", "--seconds", "0", "--top-p", "2", "--num", "0", "--threads", "0"))
    assert [line.split(":")[-2].strip() for line in told.splitlines()] == [
        "--seconds",
        "--num",
        "--top-p",
        "--threads",
    ]


def test_a_model_that_was_tampered_with_is_refused(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, cwd / "mine")
    (cwd / "mine" / "config.json").write_text("{}")
    assert "config.json: must hold what manifest.json says" in refusal(
        capfd, "generate", "--model", "mine", *SHORT
    )


def test_render_makes_a_picture_and_a_sound_beside_the_file(
    cwd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended("render", "band.mid") == 0
    assert capfd.readouterr().out.split() == ["band.png", "band.flac"]
    made = {name: (cwd / name).read_bytes() for name in ("band.png", "band.flac")}
    assert made["band.png"][:4] == b"\x89PNG" and made["band.flac"][:4] == b"fLaC"
    assert ended("render", "band.mid") == 0
    assert capfd.readouterr().out.split() == ["band-02.png", "band-02.flac"]
    assert (cwd / "band-02.flac").read_bytes() == made["band.flac"]
    (cwd / "band.flac").unlink()
    assert ended("render", "band.mid") == 0 and not (cwd / "band.flac").exists()
    assert {"band-03.png", "band-03.flac"} <= set(contents(cwd))
    assert ended("render", "band.mid", "--force") == 0
    assert (cwd / "band.flac").read_bytes() == made["band.flac"]
    assert ended("render", "band.mid", "--out", "there", "--audio", "wav") == 0
    assert set(contents(cwd / "there")) == {"band.png", "band.wav"}
    assert ended("render", "band.mid", "--out", "there", "--force", "--audio", "none") == 0
    assert contents(cwd / "there")["band.png"] == (cwd / "band.png").read_bytes() == made["band.png"]


FLUIDSYNTH = """#!/bin/sh
for last; do :; done
case "$*" in *broken*) echo 'fluidsynth: error: what a SoundFont' >&2;; esac
head -c 4 "$last" >&2
head -c 400002 /dev/zero
"""


def test_a_soundfont_is_played_by_fluidsynth_where_there_is_one(
    cwd: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    (cwd / "bin").mkdir()
    monkeypatch.setenv("PATH", f"{cwd / 'bin'}:/usr/bin:/bin")
    for name in ("good.sf2", "broken.sf2"):
        (cwd / name).write_bytes(b"RIFF\x00\x00\x00\x00sfbk")
    monkeypatch.setattr("shutil.which", lambda _name: None)
    told = refusal(capfd, "render", "kit.mid", "--soundfont", "good.sf2")
    assert "--soundfont: needs FluidSynth, got no fluidsynth on this machine. Install it" in told
    monkeypatch.undo()
    monkeypatch.chdir(cwd)
    monkeypatch.setenv("PATH", f"{cwd / 'bin'}:/usr/bin:/bin")
    program = cwd / "bin" / "fluidsynth"
    program.write_text(FLUIDSYNTH)
    program.chmod(0o755)
    assert ended("render", "kit.mid", "--soundfont", "good.sf2", "--audio", "wav") == 0
    sound, rate = soundfile.read(cwd / "kit.wav")
    assert (sound.shape, rate) == ((100_000, 2), 44_100)
    for loud in (0.02, 0.3):  # as loud as the built-in piano, whatever FluidSynth makes of the SoundFont
        tone = loud * 32_767 * np.sin(np.arange(3 * 44_100) / 9)
        (cwd / "tone").write_bytes(np.rint(tone)[:, None].repeat(2, 1).astype("<i2").tobytes())
        program.write_text(f"#!/bin/sh\nexec cat {cwd / 'tone'}\n")
        levels = []
        for soundfont in ([], ["--soundfont", "good.sf2"]):
            assert ended("render", "band.mid", *soundfont, "--out", "loud", "--force") == 0
            sound, rate = soundfile.read(cwd / "loud" / "band.flac", dtype="int16")
            levels.append(measure_level([sound], rate))
        assert abs(20 * np.log10(levels[1] / levels[0])) < 1
    program.write_text(FLUIDSYNTH)
    told = refusal(capfd, "render", "band.mid", "--soundfont", "broken.sf2")
    assert "what a SoundFont" in told and not (cwd / "band.png").exists()
    assert "--soundfont: must not be combined with --audio none" in refusal(
        capfd, "render", "band.mid", "--soundfont", "good.sf2", "--audio", "none"
    )
    assert "must be a SoundFont 2 file" in refusal(capfd, "render", "band.mid", "--soundfont", "text.mid")
    assert "must be a readable SoundFont" in refusal(capfd, "render", "band.mid", "--soundfont", "no.sf2")


@pytest.mark.skipif(shutil.which("fluidsynth") is None, reason="needs FluidSynth on PATH")
@pytest.mark.parametrize("loud", [0.2, 0.9])
def test_a_soundfont_is_as_loud_as_the_built_in_piano(cwd: Path, loud: float) -> None:
    (cwd / "tiny.sf2").write_bytes(tiny_soundfont(loud=loud))
    levels = []
    for soundfont in ([], ["--soundfont", "tiny.sf2"]):
        assert ended("render", "band.mid", *soundfont, "--out", "loud", "--force") == 0
        sound, rate = soundfile.read(cwd / "loud" / "band.flac", dtype="int16")
        levels.append(measure_level([sound], rate))
    assert abs(20 * np.log10(levels[1] / levels[0])) < 1


def test_inspect_says_what_the_tokenizer_sees(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert ended("inspect", "band.mid", "--model", model, "--tokens", 5) == 0
    table = capfd.readouterr().out
    assert table.startswith(
        "band.mid: 75% of the notes survive, moved by up to 4 ms; the pedal becomes longer notes; "
        "drums are ignored\n\nMIDI of format 1, "
    )
    for words in ("Kit", "drums", "not read", "strings", "tempo", "100 per minute", "outside of pitches"):
        assert words in table
    assert re.search(r"\n +0  Bar\n +1  Position 0 \(0\.000 s\)\n +2  Pitch 60 \(C4\)\n", table)
    assert ended("inspect", "band.mid", "--model", model / "tokenizer", "--json") == 0
    facts = json.loads(capfd.readouterr().out)
    assert facts["music"]["notes"] == 4 and facts["music"]["drum_notes_left_out"] == 2
    assert facts["lost"]["outside_of_pitches"] == 1
    assert facts["file"]["tempo_bpm"] == {"first": 100.0, "lowest": 100.0, "highest": 100.0, "changes": 0}
    assert [each["channel"] for each in facts["file"]["tracks"]] == [1, 4, 10]


def test_inspect_tells_all_that_is_lost(cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    endless = [(0, b"\x90\x32\x40"), (9, b"\x90\x33\x40"), (50, b"\x90\x33\x40"), (90, b"\x80\x33\x00")]
    pedals = [
        (tick, bytes((0xB0, number, value))) for number in (66, 67) for tick, value in ((5, 127), (9, 0))
    ]
    other = [(0, b"\xff\x21\x01\x01"), *note(0, 480, 5), *note(0, 90, 36, channel=9)]
    (cwd / "lossy.mid").write_bytes(smf(track(*endless, *pedals), track(*other)))
    assert ended("inspect", "lossy.mid", "--model", model, "--json") == 0
    lost = json.loads(capfd.readouterr().out)["lost"]
    assert (lost["drum_notes"], lost["notes_without_an_end"], lost["notes_that_end_with_another"]) == (
        1,
        1,
        1,
    )
    assert lost["pedals_of_other_kinds"] == {"sostenuto": 1, "soft": 1, "legato": 0, "hold_2": 0}
    assert (lost["ports_read_as_one"], lost["outside_of_pitches"]) == (2, 1)
    assert ended("inspect", "lossy.mid", "--model", model) == 0
    table = capfd.readouterr().out
    assert re.search(r"notes without an end +1\n", table) and re.search(r"sostenuto 1, soft 1, .*\n", table)
    assert re.search(r"not read  port 1\n", table)
    assert ended("generate", "lossy.mid", "--model", model, *SHORT, "--audio", "none") == 0
    assert "left out: 1 notes without an end" in capfd.readouterr().out


@pytest.mark.parametrize("name", SITUATIONS)
def test_every_command_reads_a_file_as_it_is_meant(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    situation = SITUATIONS[name]
    (cwd / "odd.mid").write_bytes(situation.content)
    assert ended("inspect", "odd.mid", "--model", model, "--json") == 0
    music = json.loads(capfd.readouterr().out)["music"]
    assert (music["notes"], music["drum_notes_left_out"]) == (len(situation.notes), situation.drums)
    assert music["pedal_presses"] == len(situation.pedal)
    assert music["seconds"] == pytest.approx(max(start + length for start, length, _ in situation.notes))
    assert ended("render", "odd.mid", "--out", "seen") == 0 and {*contents(cwd / "seen")} == {
        "odd.png",
        "odd.flac",
    }
    few = ("--seconds", "1", "--tokens", "8", "--audio", "none")
    assert ended("generate", "odd.mid", "--model", model, *few, "--out", "new") == 0
    piece = json.loads((cwd / "new" / "settings.json").read_text())["pieces"][0]
    assert piece["prompt_notes"] == len(situation.notes)


def test_a_prompt_that_the_model_does_not_know_is_named_by_its_file(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (cwd / "low.mid").write_bytes(smf(track(*note(0, 480, 5))))
    told = refusal(capfd, "generate", "low.mid", "--model", model, *SHORT)
    assert "low.mid: must have a note that the model knows, of pitch 21 to 108, got 1 others" in told


def test_inspect_has_the_tokenizer_of_the_params_before_anything_ran(
    cwd: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (cwd / name).write_bytes((ROOT / name).read_bytes())
    assert ended("inspect", "band.mid", "--json") == 0
    assert json.loads(capfd.readouterr().out)["tokens"]["vocabulary"] == 328


def test_express_writes_beside_the_file_under_the_next_free_name(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("band-expressed.mid", "band-expressed-02.mid"):
        assert ended("express", "band.mid", "--model", model, "--seed", 4) == 0
        told = capfd.readouterr().out
        assert f"{name}: 4 notes\n" in told and "to reproduce it: --seed 4\n" in told
        assert "unchanged: 1 notes outside of the model's pitch range" in told
    first = (cwd / "band-expressed.mid").read_bytes()
    assert first == (cwd / "band-expressed-02.mid").read_bytes() != (cwd / "band.mid").read_bytes()
    for words, told in (
        (["text.mid"], "text.mid: must be a MIDI file"),
        (["band.mid", "--seed", "-1"], "--seed: must be at least 0"),
        (["band.mid", "--temperature", "-1"], "--temperature: must be between 0 and 5"),
        (["band.mid", "--out", "text.mid"], "--out: must be a folder"),
    ):
        before = set(cwd.iterdir())
        assert told in refusal(capfd, "express", "--model", model, *words)
        assert set(cwd.iterdir()) == before


@pytest.mark.parametrize("command", ["generate", "express", "render", "inspect"])
def test_help_teaches_by_example(command: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert ended(command, "--help") == 0
    assert f"examples:\n  coma-gen {command}" in capfd.readouterr().out


def test_help_tells_the_defaults_that_hold(capfd: pytest.CaptureFixture[str]) -> None:
    ended("generate", "--help")
    options = " ".join(capfd.readouterr().out.split()).split(" --")[1:]
    told = dict(
        re.findall(r"^([a-z-]+).*\(default: ([\d.]+)\b", option)[0]
        for option in options
        if "(default: " in option and re.search(r"default: \d", option)
    )
    request = Request()
    assert told == {
        "seconds": f"{request.seconds:g}",
        "num": str(request.num),
        "temperature": f"{request.temperature:g}",
        "top-p": str(request.top_p),
        "max-empty-bars": str(request.max_empty_bars),
        "max-rewinds": str(request.max_rewinds),
        "threads": "1",
    }


class TestNames:
    @pytest.fixture
    def odd(self, cwd: Path) -> Path:
        """A file whose name is no UTF-8, as older systems wrote them."""
        path = Path(os.fsdecode(b"caf\xe9.mid"))
        try:
            shutil.copy("band.mid", path)
        except OSError:
            pytest.skip("this file system takes UTF-8 only")
        return path

    def test_one_that_is_no_utf_8_is_rendered_and_gone_on_with(
        self, odd: Path, cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        assert ended("render", odd) == 0 and ended("inspect", odd, "--model", model) == 0
        assert odd.with_suffix(".png").exists() and odd.with_suffix(".flac").exists()
        assert ended("generate", odd, "--model", model, *SHORT, "--audio", "none") == 0
        (folder,) = (cwd / "generated").iterdir()
        settings = json.loads((folder / "settings.json").read_text(encoding="utf-8"))
        assert settings["prompt"]["file"] == "caf\\xe9.mid"
        written = settings["command"].split("generate ")[1].split(" --")[0]
        typed = subprocess.run(["bash", "-c", f"printf %s {written}"], capture_output=True, check=True).stdout
        assert typed == os.fsencode(odd)
        assert "Traceback" not in capfd.readouterr().err

    def test_one_that_the_terminal_cannot_show_is_shown_otherwise(
        self, cwd: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        shutil.copy("band.mid", "\u5f26.mid")
        terminal = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
        monkeypatch.setattr(sys, "stdout", terminal)
        assert ended("render", "\u5f26.mid", "--audio", "none") == 0
        assert terminal.buffer.getvalue() == b"\\u5f26.png\n"

    @pytest.mark.slow
    def test_the_longest_that_systems_hold(
        self, cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        room, longest = Path("r" * 250 + ".mid"), Path("x" * 251 + ".mid")
        for path in (room, longest):
            shutil.copy("band.mid", path)
            assert ended("generate", path, "--model", model, *SHORT, "--audio", "none") == 0
        assert len(list((cwd / "generated").glob("*/*-continued-01.mid"))) == 2
        assert ended("render", room) == 0 and room.with_suffix(".flac").exists()
        assert "must be short enough for the names of the output files (255 bytes" in refusal(
            capfd, "render", longest
        )
        out = "o" * 255
        assert ended("generate", "--model", model, *SHORT, "--audio", "none", "--out", out) == 0
        assert ended("generate", "--model", model, *SHORT, "--audio", "none", "--out", out, "--force") == 0
        assert ended("generate", "--model", model, *SHORT, "--audio", "none", "--out", out) == 0
        assert (cwd / ("o" * 252 + "-02")).is_dir()
        assert not list(cwd.glob(".*"))


@pytest.mark.parametrize("command", ["render", "inspect", "generate"])
def test_a_pipe_is_not_waited_for(
    command: str, cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo("pipe.mid")
    words = {"generate": ["--model", model], "inspect": ["--model", model]}.get(command, [])
    assert "pipe.mid: must be a file, got a pipe or a device" in refusal(capfd, command, *words, "pipe.mid")
    assert not (cwd / "generated").exists()


def test_a_soundfont_that_is_a_pipe_is_not_waited_for(cwd: Path, capfd: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("piano.sf2")
    assert "piano.sf2: must be a file" in refusal(capfd, "render", "band.mid", "--soundfont", "piano.sf2")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_nobody_reads_on(unbuffered: str, cwd: Path, model: Path) -> None:
    """As behind `| head -0`: the pipe is closed before anything is printed."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    command = [sys.executable, "-m", "coma_gen.cli", "inspect", "band.mid", "--model", str(model)]
    source = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": unbuffered}
    done = subprocess.run(command, stdout=write_end, stderr=subprocess.PIPE, env=source, check=False)
    os.close(write_end)
    assert done.stderr == b"" and done.returncode == 128 + signal.SIGPIPE


def test_a_model_with_conditions_is_told_what_is_asked_for(
    cwd: Path, model: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    told = written_model(cwd / "told", conditions=("density", "polyphony"))
    asked = (*SHORT, "--audio", "none", "--seed", "2", "--out")
    repeats = []
    for number, wishes in enumerate((["--target", "density=3"], ["--no-follow", "--polyphony", "-1"])):
        assert ended("generate", "band.mid", "--model", told, *wishes, *asked, f"out{number}") == 0
        settings = json.loads((cwd / f"out{number}" / "settings.json").read_text())
        repeats.append(shlex.split(settings["command"]))
    assert "density=3" in repeats[0] and "--no-follow" not in repeats[0]
    assert "--no-follow" in repeats[1] and "--polyphony=-1.0" in repeats[1]
    text = refusal(capfd, "generate", "band.mid", "--model", model, "--polyphony", "1", *asked, "no")
    assert "polyphony: needs a model that was trained with the condition polyphony" in text
    assert not (cwd / "no").exists()
    text = refusal(capfd, "generate", "band.mid", "--model", told, "--target", "density=-1", *asked, "no")
    assert "--target: must be such as" in text
