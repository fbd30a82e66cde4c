"""The whole graph in temporary checkouts, by real `dvc`: everything is made, recorded once, made again with
the same bits, and nothing runs that need not.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from checkout import (
    DVC,
    Built,
    attempt,
    clone,
    coma_gen,
    copy_of,
    dvc,
    git_status,
    locked_outs,
    make_checkout,
    run,
    set_params,
    stages_run,
)
from coma_gen.corpus.synthetic import write_synthetic
from coma_gen.params.reading import read_yaml
from coma_gen.workspace.verify import compare
from recorded import OF_MLFLOW, STAGES, metrics_of, model_versions, recorded_runs

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, OF_MLFLOW)]
ALL = (
    "download",
    "split",
    "fit_tokenizer",
    "shard",
    "baseline",
    "train",
    "evaluate",
    "sample",
    "report",
    "track",
)


@pytest.fixture(scope="module")
def another(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished checkout to be changed; each test puts back what it changes."""
    return copy_of(built.folder, tmp_path_factory.mktemp("another") / "checkout")


class TestOneRun:
    def test_every_stage_runs_once_without_a_warning(self, built: Built) -> None:
        assert stages_run(built.output) == list(ALL)
        assert "Warning" not in built.output and "Traceback" not in built.output

    def test_everything_is_there(self, built: Built) -> None:
        outs = locked_outs(built.folder)
        assert {name for name in outs if name.startswith("metrics/")} == {
            "metrics/curve.csv",
            *(f"metrics/{stage}.json" for stage in STAGES),
        }
        assert all((built.folder / name).exists() for name in outs)
        page = (built.folder / "data" / "report" / "index.html").read_text()
        assert "synthetic" in page and len(list((built.folder / "data" / "samples").glob("*.mid"))) == 2
        assert metrics_of(built.folder)["split"]["train"]["performances"] >= 32

    def test_git_sees_the_lock_and_the_metrics_only(self, built: Built) -> None:
        made = ["dvc.lock", "metrics/curve.csv", *(f"metrics/{stage}.json" for stage in STAGES)]
        assert sorted(built.changed) == sorted(f"?? {name}" for name in made)
        assert git_status(built.folder) == []

    def test_it_is_one_complete_run_in_mlflow(self, built: Built) -> None:
        (recorded,) = recorded_runs(built.folder)
        assert recorded.name == "workspace"
        assert recorded.lacks(read_yaml(built.folder / "params.yaml"), metrics_of(built.folder)) == []
        assert model_versions(built.folder) == [recorded.tags["model.digest"]]
        assert not list((built.folder / ".resume").glob("*"))

    def test_a_second_time_nothing_runs(self, built: Built) -> None:
        output = dvc(built.folder, "repro")
        assert "up to date" in output and stages_run(output) == []
        assert run(built.folder, *DVC, "status", "--json").strip() == "{}"
        assert len(recorded_runs(built.folder)) == 1
        assert git_status(built.folder) == []


class TestVerify:
    def test_the_committed_build_is_identical(self, built: Built) -> None:
        status, output = coma_gen(built.folder, "verify")
        assert status == 0
        assert output.count("identical") == len(ALL) - 1

    def test_another_split_is_a_difference(self, another: Path) -> None:
        digest = locked_outs(another)["data/split"]
        with _edited(another / "dvc.lock", (digest, "0" * 32 + ".dir")):
            rows = {row.stage: row for row in compare(another)}
            assert coma_gen(another, "verify")[0] == 1
        assert [name for name, row in rows.items() if not row.good] == ["split"]
        assert "data/split" in rows["split"].verdict

    def test_another_model_is_held_against_the_committed_figures(self, another: Path) -> None:
        digest = locked_outs(another)["data/model"]
        nll = metrics_of(another)["train"]["best"]["validation_nll"]
        with _edited(another / "dvc.lock", (digest, "0" * 32 + ".dir")):
            (row,) = (row for row in compare(another) if row.stage == "train")
            assert row.good and "within tolerance (0.00%" in row.verdict
            with _edited(another / "metrics" / "train.json", (str(nll), str(nll * 1.2))):
                (row,) = (row for row in compare(another) if row.stage == "train")
        assert not row.good and row.verdict.startswith("DIFFERS")


def _edited(path: Path, *changes: tuple[str, str]) -> _Edit:
    return _Edit(path, changes)


class _Edit:
    """A file that reads otherwise inside a `with` block."""

    def __init__(self, path: Path, changes: tuple[tuple[str, str], ...]) -> None:
        self.path, self.changes, self.before = path, changes, path.read_text()

    def __enter__(self) -> None:
        text = self.before
        for old, new in self.changes:
            assert old in text
            text = text.replace(old, new)
        self.path.write_text(text)

    def __exit__(self, *_: object) -> None:
        self.path.write_text(self.before)


def changed_stages(checkout: Path) -> set[str]:
    """The stages that dvc would run because of themselves, not of a stage before them."""
    from dvc.repo import Repo

    with Repo(str(checkout)) as repo:
        return {name.rpartition(":")[2] for name in repo.status()}


FLOATING = {"baseline", "train", "evaluate", "sample", "report"}
"""Those whose floats depend on threads and instruction set."""
EDITS = [
    ("runtime", "threads", 2, FLOATING),
    ("runtime", "pin_cpu", False, FLOATING),
    ("download", "synthetic_seed", 1, {"download"}),
    ("split", "seed", 1, {"split"}),
    ("tokenizer", "velocities", 17, {"fit_tokenizer"}),
    ("shard", "transpose", 5, {"shard"}),
    ("model", "num_layers", 2, {"train"}),
    ("train", "learning_rate", 1e-5, {"train"}),
    ("train", "early_stopping", 7, {"train"}),
    ("baseline", "bigram_prior", 11.5, {"baseline"}),
    ("evaluate", "bootstrap_resamples", 200, {"baseline", "evaluate"}),
    ("evaluate", "batch", 2, {"evaluate"}),
    ("sample", "temperature", 0.87, {"sample"}),
    ("report", "audio", True, {"report"}),
]


class TestWhatAnEditReruns:
    @pytest.fixture(autouse=True)
    def _here(self, another: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(another)
        monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
        assert changed_stages(another) == set()

    @pytest.fixture
    def params(self, another: Path) -> Iterator[Path]:
        path = another / "params.yaml"
        before = path.read_bytes()
        yield path
        path.write_bytes(before)

    @pytest.mark.parametrize(
        ("section", "key", "value", "stages"), EDITS, ids=[f"{edit[0]}.{edit[1]}" for edit in EDITS]
    )
    def test_param(
        self, section: str, key: str, value: object, stages: set[str], another: Path, params: Path
    ) -> None:
        assert read_yaml(params)[section][key] != value
        set_params(another, {section: {key: value}})
        assert changed_stages(another) == stages | {"track"}

    def test_every_section_is_tried(self, another: Path) -> None:
        assert {section for section, *_ in EDITS} == set(read_yaml(another / "params.yaml"))

    def test_the_same_values_written_otherwise_rerun_nothing(self, another: Path, params: Path) -> None:
        content = read_yaml(params)
        params.write_text(
            "# another comment\n" + yaml.safe_dump(content, sort_keys=True, default_flow_style=True)
        )
        assert changed_stages(another) == set()

    @pytest.mark.parametrize(
        "name",
        [
            "src/coma_gen/files.py",
            "src/coma_gen/corpus/synthetic.py",
            "src/coma_gen/music/pedal.py",
            "src/coma_gen/model/attention.py",
            "src/coma_gen/training/loop.py",
            "src/coma_gen/evaluation/ngrams.py",
            "src/coma_gen/render/report.css",
            "src/coma_gen/tracking/mirror.py",
            "src/coma_gen/cli.py",
            "stages/_start.py",
            "stages/sample.py",
        ],
    )
    def test_source_file(self, name: str, another: Path) -> None:
        stages = read_yaml(another / "dvc.yaml")["stages"]
        expected = {stage for stage, of in stages.items() if name in of["deps"]} | {"track"}
        before = (another / name).read_text()
        with _edited(another / name, (before, f"{before}\n")):
            assert changed_stages(another) == expected

    def test_what_imports_and_installation_leave_reruns_nothing(self, another: Path) -> None:
        left = (
            "src/coma_gen/__pycache__/x.pyc",
            "stages/__pycache__/y.pyc",
            "src/coma_gen.egg-info/PKG-INFO",
        )
        for name in left:
            (another / name).parent.mkdir(exist_ok=True)
            (another / name).write_text("left")
        assert changed_stages(another) == set()
        assert git_status(another) == []


def _one_cpu() -> str:
    return str(min(os.sched_getaffinity(0)))


class TestAgain:
    def test_without_data_and_cache_it_gives_the_same_lock_elsewhere_on_one_cpu(
        self, built: Built, tmp_path: Path
    ) -> None:
        checkout = clone(built.folder, tmp_path / "a longer path, and another")
        shutil.rmtree(checkout / "metrics")
        one_cpu = (
            "import os, sys; os.sched_setaffinity(0, {int(sys.argv[1])}); os.execv(sys.argv[2], sys.argv[2:])"
        )
        output = run(checkout, sys.executable, "-c", one_cpu, _one_cpu(), *DVC, "repro")
        assert stages_run(output) == list(ALL)
        assert (checkout / "dvc.lock").read_bytes() == (built.folder / "dvc.lock").read_bytes()
        assert git_status(checkout) == []

    def test_another_seed_gives_another_lock(self, built: Built, tmp_path: Path) -> None:
        checkout = clone(built.folder, tmp_path / "other")
        set_params(checkout, {"download": {"synthetic_seed": 7}})
        dvc(checkout, "repro", "-s", "download")
        assert locked_outs(checkout)["data/corpus"] != locked_outs(built.folder)["data/corpus"]


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout in which nothing has run, with an identity; each test changes params.yaml as it likes."""
    checkout = make_checkout(tmp_path_factory.mktemp("fresh") / "checkout")
    for key, text in (("user.name", "t"), ("user.email", "t@example.org")):
        run(checkout, "git", "config", key, text)
    return checkout


@pytest.fixture
def params(fresh: Path) -> Iterator[Path]:
    yield fresh / "params.yaml"
    run(fresh, "git", "checkout", "-q", ".")


class TestBadInput:
    @pytest.mark.usefixtures("params")
    def test_wrong_params_are_all_named_and_nothing_is_written(self, fresh: Path) -> None:
        set_params(fresh, {"model": {"num_layer": 2}, "train": {"learning_rate": "fast"}})
        status, output = attempt(fresh, *DVC, "repro")
        assert status != 0
        assert "model.num_layer" in output and "train.learning_rate" in output and "'fast'" in output
        assert "Traceback" not in output
        assert git_status(fresh) == [" M params.yaml"]
        assert not (fresh / "data").exists() or not list((fresh / "data").iterdir())

    @pytest.mark.usefixtures("params")
    def test_without_a_network_the_way_out_is_named(self, fresh: Path, tmp_path: Path) -> None:
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_FIND_LINKS": "",
            "PIP_CACHE_DIR": str(tmp_path),
            "PIP_CONFIG_FILE": os.devnull,
        }
        set_params(fresh, {"download": {"corpus": "maestro-mini"}})
        status, output = attempt(fresh, *DVC, "repro", env=offline)
        assert status != 0
        assert "dvc exp run -S download.corpus=synthetic" in output and "Traceback" not in output
        assert not (fresh / "data" / "corpus").exists()

    @pytest.mark.usefixtures("params")
    def test_a_folder_that_is_not_there_is_named(self, fresh: Path, tmp_path: Path) -> None:
        set_params(fresh, {"download": {"corpus": "folder", "path": str(tmp_path / "none")}})
        status, output = attempt(fresh, *DVC, "repro")
        assert status != 0
        assert str(tmp_path / "none") in output and "Traceback" not in output


@pytest.fixture(scope="module")
def music(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few MIDI files of one's own, at several depths."""
    made, own = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("own")
    write_synthetic(made, performances=12, seconds=6.0, seed=3)
    for number, path in enumerate(sorted(made.rglob("*.mid*"))):
        target = own / ("" if number % 3 else "A. Composer") / f"piece {number}.mid"
        target.parent.mkdir(exist_ok=True)
        shutil.copy(path, target)
    return own


class TestOwnMusic:
    @pytest.mark.usefixtures("params")
    def test_it_goes_through_the_data_stages_and_new_files_are_noticed(
        self, fresh: Path, music: Path
    ) -> None:
        set_params(
            fresh,
            {
                "download": {"corpus": "folder", "path": str(music)},
                "split": {"validation_fraction": 0.3, "test_fraction": 0.3},
            },
        )
        output = dvc(fresh, "repro", "shard")
        assert stages_run(output) == ["download", "split", "fit_tokenizer", "shard"]
        split = yaml.safe_load((fresh / "metrics" / "split.json").read_text())
        assert sum(split[name]["performances"] for name in ("train", "validation", "test")) == 12
        assert "didn't change" in dvc(fresh, "repro", "download")
        (music / "one more.mid").write_bytes(next(music.glob("*.mid")).read_bytes())
        assert stages_run(dvc(fresh, "repro", "download")) == ["download"]

    @pytest.mark.usefixtures("params")
    def test_in_a_copy_of_the_checkout_an_absolute_path_is_asked_for(self, fresh: Path) -> None:
        (fresh / "music" / "mine.mid").write_bytes(b"known to this folder only")
        status, output = attempt(
            fresh, *DVC, "exp", "run", "--temp", "-S", "download.corpus=folder", "download"
        )
        (fresh / "music" / "mine.mid").unlink()
        assert status != 0
        assert "download.path" in output and "absolute path" in output and "Traceback" not in output
