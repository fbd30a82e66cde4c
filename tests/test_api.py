"""The Python API: lazy, equal to the command line, and clear about what it refuses."""

from __future__ import annotations

import ast
import inspect
import os
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from midi_builder import note, smf, track
from small_models import SCALE, written_model
from subprocess_utils import environment

import coma_gen
from coma_gen import GeneratedPiece, MusicModel, Notes, UserError, load_model
from coma_gen.evaluation.likelihood import model_scorer
from coma_gen.evaluation.summary import piece_table
from coma_gen.generation.music_generator import MusicGenerator
from coma_gen.generation.request import Request
from coma_gen.generation.settings import GenerateSettings
from coma_gen.midi.io import midi_bytes, read_notes

ROOT = Path(__file__).resolve().parents[1]
SHORT = {"seconds": 2, "tokens": 120}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(folder: Path) -> MusicModel:
    return load_model(folder)


@pytest.fixture(scope="module")
def piece(model: MusicModel) -> GeneratedPiece:
    return model.generate(SCALE, seed=1, **SHORT)


@pytest.fixture
def prompt(tmp_path: Path) -> Path:
    path = tmp_path / "scale.mid"
    path.write_bytes(midi_bytes(SCALE))
    return path


def run_python(code: str, *arguments: object, folder: Path) -> str:
    """What a program prints that runs in a fresh process of its own."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class TestImport:
    def test_loads_no_numeric_library_until_a_model_is_loaded(self, tmp_path: Path) -> None:
        code = (
            "import sys, coma_gen\n"
            "few = len(sys.modules)\n"
            "from coma_gen import GeneratedPiece, MusicModel, load_model\n"
            "heavy = {'numpy', 'torch', 'pandas', 'mlflow', 'matplotlib', 'symusic', 'miditok'}\n"
            "print(few, *sorted(heavy & set(sys.modules)))"
        )
        modules, *heavy = run_python(code, folder=tmp_path).split()
        assert heavy == []
        bare = int(run_python("import sys; print(len(sys.modules))", folder=tmp_path))
        assert int(modules) - bare <= 3

    def test_every_public_name_is_there_and_in_the_stub(self) -> None:
        stub = ast.parse((ROOT / "src" / "coma_gen" / "__init__.pyi").read_text())
        named = {
            alias.asname or alias.name
            for node in stub.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
        }
        assert named | {"__version__"} == set(coma_gen.__all__) <= set(dir(coma_gen))
        assert all(getattr(coma_gen, name) for name in coma_gen.__all__)
        with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
            coma_gen.nothing  # noqa: B018

    def test_settings_are_those_of_the_command_line(self) -> None:
        settings = set(GenerateSettings.__annotations__)
        assert settings | {"num"} == set(Request.__dataclass_fields__)
        assert set(inspect.signature(MusicModel.generate).parameters) == {"self", "prompt", "num", "settings"}


class TestSameAsTheCommandLine:
    PROGRAM = """
import sys
from coma_gen import load_model

model = load_model(sys.argv[1])
pieces = model.generate(prompt=sys.argv[2], num=2, seconds=2, tokens=120, seed=7, temperature=0.9, top_p=0.9)
for number, piece in enumerate(pieces, start=1):
    for ending in ("mid", "png", "flac"):
        piece.save(f"python/scale-continued-{number:02d}.{ending}")
print(model.is_pinned)
"""

    @pytest.mark.slow
    def test_the_same_seed_gives_the_same_bytes(self, folder: Path, prompt: Path) -> None:
        here = prompt.parent
        pinned = run_python(self.PROGRAM, folder, prompt.name, folder=here)
        assert pinned.strip() == str(os.uname().machine in ("x86_64", "AMD64"))
        words = ["generate", "--model", str(folder), prompt.name, "--num", "2", "--seconds", "2"]
        words += [
            "--tokens",
            "120",
            "--seed",
            "7",
            "--temperature",
            "0.9",
            "--top-p",
            "0.9",
            "--out",
            "typed",
        ]
        run_python("import sys; from coma_gen.cli.main import main; main(sys.argv[1:])", *words, folder=here)
        names = {
            f"scale-continued-{number:02d}.{ending}" for number in (1, 2) for ending in ("mid", "png", "flac")
        }
        assert {path.name for path in (here / "python").iterdir()} == names
        for name in names:
            assert (here / "python" / name).read_bytes() == (here / "typed" / name).read_bytes(), name

    def test_where_numpy_was_imported_before_nothing_is_set(self, folder: Path, tmp_path: Path) -> None:
        code = (
            "import os, sys, numpy\n"
            "before = dict(os.environ)\n"
            "from coma_gen import load_model\n"
            "model = load_model(sys.argv[1])\n"
            "print(model.is_pinned, {k for k, v in os.environ.items() if before.get(k) != v} & {\n"
            "    'ATEN_CPU_CAPABILITY', 'OMP_NUM_THREADS', 'NPY_DISABLE_CPU_FEATURES'})"
        )
        assert run_python(code, folder, folder=tmp_path).strip() == "False set()"

    def test_a_caller_may_keep_its_environment(self, folder: Path, tmp_path: Path) -> None:
        code = (
            "import os, sys\n"
            "from coma_gen import load_model\n"
            "model = load_model(sys.argv[1], pin=False)\n"
            "print(model.is_pinned, os.environ.get('ATEN_CPU_CAPABILITY'))"
        )
        assert run_python(code, folder, folder=tmp_path).strip() == "False None"


class TestGenerate:
    def test_a_prompt_is_continued(self, model: MusicModel, prompt: Path) -> None:
        piece = model.generate(prompt=prompt, seed=1, **SHORT)
        assert isinstance(piece, GeneratedPiece)
        assert piece.prompt_seconds == SCALE.end_of_onsets
        assert len(piece.notes) == len(SCALE) + len(piece.new_notes) and len(piece.new_notes)
        assert piece.new_notes.onset.min() > piece.prompt_seconds
        assert read_notes(piece.midi).onset == pytest.approx(piece.notes.onset, abs=0.003)
        assert piece.title == "scale.mid, continued"
        assert repr(piece).startswith("<GeneratedPiece: 12 prompt notes + ")

    def test_the_new_music_alone_on_another_instrument(self, model: MusicModel, prompt: Path) -> None:
        whole = model.generate(prompt=prompt, seed=1, until_second=3.1, **SHORT)
        alone = model.generate(
            prompt=prompt, seed=1, until_second=3.1, only_new=True, instrument="violin", **SHORT
        )
        assert whole.prompt_seconds == 3.0 and alone.prompt_seconds is None
        np.testing.assert_allclose(alone.notes.onset + 3.0, whole.new_notes.onset, atol=1e-9)
        assert alone.notes == alone.new_notes and len(read_notes(alone.midi)) == len(alone.notes)
        assert b"\xc1\x28" in alone.midi
        part = model.generate(prompt=prompt, seed=1, until_second=3.1, prompt_seconds=1.2, **SHORT)
        assert len(part.notes) - len(part.new_notes) == 3
        nothing = model.generate(seed=1, instrument=73, **SHORT)
        assert b"\xff\x03\x05Flute" in nothing.midi and b"\xc0\x49" in nothing.midi
        with pytest.raises(UserError) as caught:
            model.generate(until_second=1, only_new=True, instrument="kazoo")
        told = [fault.where for fault in caught.value.faults]
        assert told == ["instrument", "until_second", "only_new"]
        with pytest.raises(UserError, match=r"only_new: must be true or false, got 1"):
            model.generate(prompt, only_new=1)

    def test_a_stiff_file_is_expressed(self, model: MusicModel, prompt: Path) -> None:
        piece = model.express(prompt, seed=1, timing=0)
        assert piece.notes.onset.tolist() == SCALE.onset.tolist()
        freer = model.express(prompt, seed=1)
        assert 0.01 < np.abs(freer.notes.onset - SCALE.onset).max() < 0.025
        assert piece.notes.pitch.tolist() == SCALE.pitch.tolist()
        assert piece.notes.velocity.tolist() != SCALE.velocity.tolist()
        assert freer.midi == model.express(SCALE, seed=1).midi != model.express(SCALE, seed=2).midi
        assert piece.title == "scale.mid, expressed" and read_notes(piece.midi) == piece.notes
        with pytest.raises(UserError, match="temperature: must be between"):
            model.express(prompt, temperature=-1)

    def test_every_form_of_a_prompt_is_the_same_prompt(self, model: MusicModel, prompt: Path) -> None:
        forms = (prompt, str(prompt), prompt.read_bytes(), SCALE)
        pieces = [model.generate(form, seed=3, **SHORT) for form in forms]
        assert len({piece.midi for piece in pieces}) == 1

    def test_the_seed_and_the_number_say_which_music(self, model: MusicModel) -> None:
        alone = model.generate(seed=5, **SHORT)
        three = model.generate(seed=5, num=3, **SHORT)
        assert isinstance(three, list) and [piece.prompt_seconds for piece in three] == [None] * 3
        assert alone.midi == three[0].midi and len({piece.midi for piece in three}) == 3
        assert alone.midi != model.generate(seed=6, **SHORT).midi
        assert alone.midi == model.generate(seed=np.int64(5), seconds=2.0, tokens=120, top_k=None).midi
        assert (alone.title, three[1].title) == ("Unprompted music", "Unprompted music (2 of 3)")

    def test_a_part_of_the_prompt(self, model: MusicModel) -> None:
        piece = model.generate(SCALE, from_second=1.0, prompt_seconds=2.0, **SHORT)
        assert len(piece.notes) - len(piece.new_notes) == 4

    def test_what_is_left_out_is_counted(self, model: MusicModel) -> None:
        events = [*note(0, 480), *note(480, 900, 5), *note(0, 9, 36, channel=9), (960, b"\x90\x48\x40")]
        piece = model.generate(smf(track(*events)), **SHORT)
        counts = {name: count for name, count in piece.left_out.items() if name != "new_notes_on_held_keys"}
        assert counts == {"drum_notes": 1, "notes_without_an_end": 1, "notes_outside_of_pitches": 1}


class TestPiece:
    def test_is_saved_by_the_ending_of_the_name(self, piece: GeneratedPiece, tmp_path: Path) -> None:
        for name in ("a.mid", "b.MIDI", "c.png", "d.flac", "e.wav", "new/f.mid"):
            path = tmp_path / name
            assert piece.save(str(path)) == path and path.stat().st_size > 100
        assert (tmp_path / "a.mid").read_bytes() == piece.midi == (tmp_path / "b.MIDI").read_bytes()
        assert piece.save(tmp_path / "a.mid").read_bytes() == piece.midi

    @pytest.mark.parametrize("name", ["a.aiff", "a", "mid"])
    def test_another_ending_is_refused(self, piece: GeneratedPiece, name: str, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="must end in "):
            piece.save(tmp_path / name)
        assert list(tmp_path.iterdir()) == []

    def test_the_audio_is_that_of_the_file(self, piece: GeneratedPiece, tmp_path: Path) -> None:
        samples, rate = piece.to_audio()
        pcm, file_rate = soundfile.read(piece.save(tmp_path / "a.flac"), dtype="int16")
        assert rate == file_rate and samples.shape == pcm.shape and samples.shape[1] == 2
        assert samples.dtype == np.float32 and 0 < np.abs(samples).max() <= 1
        np.testing.assert_array_equal(np.rint(samples * 32_767), pcm)
        assert len(samples) / rate > piece.notes.end_of_onsets

    def test_a_notebook_shows_picture_and_player(
        self, piece: GeneratedPiece, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        page = piece._repr_html_()
        assert "data:image/png;base64," in page and "<audio controls" in page
        assert piece._repr_png_() == piece.save(tmp_path / "a.png").read_bytes()
        shown: list[object] = []
        display = types.ModuleType("IPython.display")
        display.display = shown.append  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "IPython", types.ModuleType("IPython"))
        monkeypatch.setitem(sys.modules, "IPython.display", display)
        piece.show()
        assert shown == [piece]
        monkeypatch.setitem(sys.modules, "IPython.display", None)
        with pytest.raises(UserError, match="needs IPython"):
            piece.show()


class TestScore:
    def test_is_what_the_evaluate_stage_measures(self, model: MusicModel, folder: Path, prompt: Path) -> None:
        composer = MusicGenerator.load(folder)
        tokenizer, nats = composer.tokenizer, model_scorer(composer.loaded.model, batch=3, chunk=7, desc=None)
        ids = np.array([tokenizer.bos_id, *tokenizer.encode(SCALE), tokenizer.eos_id], np.uint16)
        index = pd.DataFrame(
            [{"midi_filename": "", "composer": "", "title": "", "notes": len(SCALE), "seconds": SCALE.end}]
        )
        wanted = piece_table(index, [ids], nats([ids]), tokenizer.vocabulary).iloc[0]
        score = model.score(prompt)
        assert (score.notes, score.tokens) == (12, wanted["tokens"])
        assert score.bits_per_note_10ms == pytest.approx(wanted["bits_per_note_10ms"], rel=1e-5)
        assert score.nats_per_token == pytest.approx(wanted["nll_per_token"], rel=1e-5)
        assert score.perplexity == pytest.approx(np.exp(wanted["nll_per_token"]), rel=1e-4)
        assert score == model.score(SCALE) == model.score(prompt.read_bytes())
        assert set(score.left_out.values()) == {0}

    def test_what_is_left_out_is_counted(self, model: MusicModel) -> None:
        events = [*note(0, 480), *note(480, 900, 5), *note(0, 9, 36, channel=9), (960, b"\x90\x48\x40")]
        events += [*note(1000, 1002, 60), *note(1003, 1400, 60)]
        score = model.score(smf(track(*events)))
        assert score.notes == 4
        assert list(score.left_out.values()) == [1, 1, 1, 1]

    def test_a_file_without_notes_is_refused(self, model: MusicModel) -> None:
        with pytest.raises(UserError, match="must have notes that are not drums"):
            model.score(Notes.empty())


class TestRefusals:
    def test_every_wrong_setting_is_named(self, model: MusicModel) -> None:
        with pytest.raises(UserError) as caught:
            model.generate(seconds=-1, temperature=float("nan"), top_p=2, seed=-1, num=0)
        assert {fault.where for fault in caught.value.faults} == {
            "seconds",
            "temperature",
            "top_p",
            "seed",
            "num",
        }

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"seconds": "30"}, "seconds: must be a number, got '30'"),
            ({"seed": 1.5}, "seed: must be a whole number, got 1.5"),
            ({"tokens": True}, "tokens: must be a whole number, got True"),
            ({"seconds": 10**400}, "seconds: must be above 0 and at most 36,000, got inf"),
            (
                {"truncate": ["pitch", "notes"]},
                "truncate: must be some of bar, position, pitch, velocity, duration, pedal, each once, "
                "got pitch, notes",
            ),
            ({"best_of": 4}, "best_of: is for a prompt only"),
            ({"from_second": 1}, "from_second: is for a prompt only"),
        ],
    )
    def test_a_setting(self, model: MusicModel, settings: dict[str, object], words: str) -> None:
        with pytest.raises(UserError) as caught:
            model.generate(**settings)  # type: ignore[call-overload]
        assert str(caught.value) == words

    def test_an_unknown_setting(self, model: MusicModel) -> None:
        with pytest.raises(TypeError, match="no setting 'temprature'; it has seconds, tokens"):
            model.generate(temprature=1)  # type: ignore[call-overload]

    def test_prompts_that_are_none(self, model: MusicModel, tmp_path: Path) -> None:
        (tmp_path / "text.mid").write_text("C D E F")
        for prompt, words in (
            (tmp_path / "no.mid", "no.mid: must be a readable MIDI file"),
            (tmp_path / "text.mid", "text.mid: "),
            (b"", "prompt: "),
            (7, "prompt: must be the path of a MIDI file, its content as bytes, or Notes, got int"),
        ):
            with pytest.raises(UserError) as caught:
                model.generate(prompt)  # type: ignore[call-overload]
            assert words in str(caught.value)

    def test_models_that_are_none(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("coma_gen.workspace.pretrained.CANDIDATES", ())
        with pytest.raises(UserError, match=r"with load_model\(\.\.\.\)") as caught:
            load_model()
        assert "--model" not in str(caught.value)
        with pytest.raises(UserError, match="must be a model's folder"):
            load_model(tmp_path)
        with pytest.raises(UserError, match="no store there"):
            load_model("models:/coma-gen@champion")
        with pytest.raises(UserError, match="threads: must be 1 to 1024, got 0"):
            load_model(tmp_path, threads=0)


def test_in_a_checkout_the_model_is_the_one_that_dvc_trained(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("dvc.yaml", "params.yaml"):
        (tmp_path / name).touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "model").symlink_to(folder)
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")
    loaded = load_model()
    assert loaded.digest == load_model(folder).digest and loaded.num_parameters > 1000
    assert repr(loaded).startswith(f"<MusicModel {loaded.digest[:12]}")
    assert loaded.tokenizer.vocab_size
