"""Experiments by real `dvc`: one at a time, queued, restored from a cache or a remote. Each leaves exactly
one complete run in MLflow, in the store of the main checkout, with the figures of `dvc exp show`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from checkout import (
    DVC,
    Built,
    clone,
    copy_of,
    dvc,
    git_status,
    locked_outs,
    show_experiments,
    stages_restored,
    stages_run,
)
from mlflow_records import OF_MLFLOW, STAGES, Recorded, metrics_of, model_versions, recorded_runs
from subprocess_utils import attempt, end_processes, run, wait_until

from coma_gen.config.yaml_reader import read_yaml
from coma_gen.experiments.dvc_experiments import find_experiment

pytestmark = [pytest.mark.slow, *map(pytest.mark.filterwarnings, OF_MLFLOW)]
QUEUED = {
    "q1": ("train.learning_rate", "0.002"),
    "q2": ("train.learning_rate", "0.004"),
    "q3": ("sample.temperature", "0.5"),
    "q4": ("model.num_layers", "2"),
}
"""Name -> the param that it changes; the last one makes what experiment b has made."""
LATE_STAGES = ["check", "train", "evaluate", "sample", "headline", "report", "track"]


@dataclass
class Tried:
    """A checkout after its experiments.

    Attributes:
        folder: the checkout.
        output: name of an experiment -> what `dvc` wrote.
    """

    folder: Path
    output: dict[str, str] = field(default_factory=dict)

    def run(self, name: str, *arguments: str) -> None:
        """Runs one experiment."""
        self.output[name] = dvc(self.folder, "exp", "run", "-n", name, *arguments)

    def recorded(self, name: str) -> Recorded:
        """The one run of that name."""
        (recorded,) = (found for found in recorded_runs(self.folder) if found.name == name)
        return recorded


@pytest.fixture(scope="module")
def tried(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tried]:
    """Two experiments in the workspace, the first ones' results again under other names, four in a queue."""
    checkout = copy_of(built.folder, tmp_path_factory.mktemp("tried") / "checkout")
    tried = Tried(checkout)
    tried.run("a", "-S", "train.learning_rate=1e-4")
    _name_somebody(checkout)
    run(checkout, "git", "checkout", "-q", ".")
    tried.run("b", "-S", "model.num_layers=2")
    tried.run("again", "-S", "model.num_layers=1", "-S", "train.learning_rate=1e-4")
    run(checkout, "git", "checkout", "-q", ".")
    try:
        _run_queue(checkout)
        tried.output["q4"] = dvc(checkout, "queue", "logs", "q4")
        yield tried
    finally:
        end_processes(checkout)


def _name_somebody(checkout: Path) -> None:
    """DVC puts a changed workspace aside as a git commit, which needs a name; `make` sets one like this."""
    run(checkout, "git", "config", "user.name", "t")
    run(checkout, "git", "config", "user.email", "t@localhost")


def _run_queue(checkout: Path) -> None:
    for name, (key, value) in QUEUED.items():
        dvc(checkout, "exp", "run", "--queue", "-n", name, "-S", f"{key}={value}")
    dvc(checkout, "queue", "start", "-j", "2")

    def statuses() -> str:
        return dvc(checkout, "queue", "status")

    wait_until(lambda: not {"Queued", "Running"} & set(statuses().split()), told=statuses, every=4.0)
    if statuses().count("Success") != len(QUEUED):
        logs = [dvc(checkout, "queue", "logs", name, check=False) for name in QUEUED]
        pytest.fail("\n".join([statuses(), *logs]))


class TestInTheWorkspace:
    def test_what_depends_on_the_change_runs_and_no_more(self, tried: Tried) -> None:
        assert stages_run(tried.output["a"]) == LATE_STAGES
        assert stages_run(tried.output["b"]) == LATE_STAGES

    def test_params_and_metrics_are_their_own(self, tried: Tried) -> None:
        a, b = tried.recorded("a"), tried.recorded("b")
        assert (a.params["train.learning_rate"], a.params["model.num_layers"]) == ("0.0001", "1")
        assert (b.params["train.learning_rate"], b.params["model.num_layers"]) == ("0.003", "2")
        assert a.metrics["bits"] != b.metrics["bits"]
        assert a.tags["digest.key"] != b.tags["digest.key"]

    def test_the_first_needs_no_git_identity(self, tried: Tried) -> None:
        assert "Ran experiment" in tried.output["a"]  # nobody was named before it

    def test_one_on_a_changed_workspace_says_that_git_needs_a_name(
        self, built: Built, tmp_path: Path
    ) -> None:
        checkout = clone(built.folder, tmp_path / "clone")
        with (checkout / "params.yaml").open("a") as file:
            file.write("# changed\n")
        status, output = attempt(checkout, *DVC, "exp", "run", "-n", "nobody")
        assert status != 0 and "Git user name and email must be configured" in output


class TestEveryExperiment:
    def test_has_exactly_one_run(self, tried: Tried) -> None:
        names = [found.name for found in recorded_runs(tried.folder)]
        assert sorted(names) == sorted(["a", "b", "again", *QUEUED])

    def test_is_complete_and_says_what_dvc_says(self, tried: Tried) -> None:
        shown = show_experiments(tried.folder)
        assert set(shown) == {"a", "b", "again", *QUEUED}
        for name, said in shown.items():
            experiment = find_experiment(tried.folder, name)
            metrics = {stage: experiment.metrics(stage) for stage in STAGES}
            assert said["metrics"] == {"metrics/headline.json": {"data": metrics["headline"]}}
            params = said["params"]["params.yaml"]["data"]
            assert tried.recorded(name).lacks(params, metrics) == [], name

    def test_the_first_screen_has_the_headline_and_what_differs(self, tried: Tried) -> None:
        left_out = "Created|Executor|State|.*/"
        shown = dvc(tried.folder, "exp", "show", "--only-changed", "--drop", left_out, "--md")
        names = [cell.strip() for cell in shown.splitlines()[0].split("|")]
        assert names[1:4] == ["Experiment", "bits", "low"] and not any("/" in name for name in names)
        changed = {key for key, _ in QUEUED.values()}
        columns = [names.index(key) for key in changed]
        assert max(map(names.index, ("validation", "nats", "illegal"))) < min(columns)
        assert len("|".join(shown.splitlines()[0].split("|")[: min(columns) + 1])) < 160

    def test_has_the_commit_that_it_started_from(self, tried: Tried) -> None:
        head = run(tried.folder, "git", "rev-parse", "HEAD").strip()
        assert {found.tags["git.commit"] for found in recorded_runs(tried.folder)} == {head}

    def test_leaves_no_checkpoints_and_no_open_runs(self, tried: Tried) -> None:
        assert {found.status for found in recorded_runs(tried.folder)} == {"FINISHED"}
        assert not list((tried.folder / ".resume").glob("*"))
        assert not list((tried.folder / ".dvc" / "tmp" / "exps").rglob("mlflow.db"))

    def test_each_set_of_weights_is_registered_once(self, tried: Tried) -> None:
        digests = model_versions(tried.folder)
        assert len(digests) == len(set(digests))
        assert set(digests) == {found.tags["digest.model"] for found in recorded_runs(tried.folder)}


class TestQueue:
    def test_each_has_its_own_param(self, tried: Tried) -> None:
        assert {name: tried.recorded(name).params[key] for name, (key, _) in QUEUED.items()} == {
            name: value for name, (_, value) in QUEUED.items()
        }

    def test_the_workspace_is_left_alone(self, tried: Tried, built: Built) -> None:
        assert git_status(tried.folder) == []
        assert (tried.folder / "dvc.lock").read_bytes() == (built.folder / "dvc.lock").read_bytes()


class TestRestored:
    @pytest.mark.parametrize(("name", "source"), [("again", "a"), ("q4", "b")])
    def test_an_experiment_made_before_is_only_tracked(self, name: str, source: str, tried: Tried) -> None:
        assert stages_run(tried.output[name]) == ["track"]
        ours, theirs = tried.recorded(name), tried.recorded(source)
        assert ours.tags["digest.model"] == theirs.tags["digest.model"]
        assert ours.params == theirs.params

    def test_a_clone_with_the_same_cache_is_only_tracked(self, built: Built, tmp_path: Path) -> None:
        checkout = clone(built.folder, tmp_path / "clone")
        dvc(checkout, "cache", "dir", "--local", str(built.folder / ".dvc" / "cache"))
        output = dvc(checkout, "repro")
        assert stages_run(output) == ["track"]
        assert "train" in stages_restored(output)
        (recorded,) = recorded_runs(checkout)
        assert recorded.lacks(read_yaml(checkout / "params.yaml"), metrics_of(checkout)) == []
        assert git_status(checkout) == []

    def test_results_that_were_deleted_come_back_without_training(self, built: Built, tmp_path: Path) -> None:
        checkout = copy_of(built.folder, tmp_path / "copy")
        run(checkout, "rm", "-r", "data/model", "data/samples", "metrics/train.json")
        assert "train" not in stages_run(dvc(checkout, "repro"))
        assert (checkout / "data" / "model").is_dir() and git_status(checkout) == []


class TestRemote:
    def test_push_and_pull_restore_everything_without_training(self, built: Built, tmp_path: Path) -> None:
        source = copy_of(built.folder, tmp_path / "source")
        dvc(source, "remote", "add", "--local", "-d", "shelf", str(tmp_path / "shelf"))
        dvc(source, "push")
        checkout = clone(source, tmp_path / "clone")
        dvc(checkout, "remote", "add", "--local", "-d", "shelf", str(tmp_path / "shelf"))
        dvc(checkout, "pull")
        assert all((checkout / name).exists() for name in locked_outs(checkout))
        page = Path("data") / "report" / "index.html"
        assert (checkout / page).read_bytes() == (built.folder / page).read_bytes()
        assert stages_run(dvc(checkout, "repro")) == ["track"]
        (recorded,) = recorded_runs(checkout)
        assert recorded.lacks(read_yaml(checkout / "params.yaml"), metrics_of(checkout)) == []
        assert git_status(checkout) == [] and "up to date" in dvc(checkout, "repro")
