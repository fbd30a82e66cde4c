"""MLflow's model registry: one version per set of weights; the best has the alias `champion`.

Every tracked run lists the model it trained. A new version of the registered model `coma-gen` is created only
for weights that have none, so that tracking twice, or another experiment with the same weights, adds nothing.
The alias `latest` of MLflow (models:/coma-gen/latest) is the newest version; the alias `champion`
(models:/coma-gen@champion) is assigned by rule:

    no champion yet            -> this model
    same test split            -> the model with fewer test bits per note at 10 ms
    different test splits      -> the model tested on more notes: scores on different splits do not compare,
                                  and MAESTRO's 177 test pieces are more reliable than the demo's one

A champion that was assigned by hand and has no score is never replaced.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import coma_gen.core.errors
from coma_gen.core.artifact import verify_artifact
from coma_gen.core.io import without_links
from coma_gen.serving.schema import Limits
from coma_gen.tracking.client import LoggedModelOutput, LoggedModelStatus, MlflowException, ModelVersion
from coma_gen.tracking.store import Store
from coma_gen.tracking.uri import MODEL, Address

if TYPE_CHECKING:
    from mlflow.models import Model

CHAMPION = "champion"
DESCRIPTION = (
    "Continues piano performances: MIDI in, MIDI out. One version per set of weights; `champion` is the one "
    "with the fewest test bits per note. The description of each version has its scores and how to use it."
)
DIGEST_TAG, ID_TAG = "model.digest", "model.id"
BITS_TAG, SPLIT_TAG, NOTES_TAG = "test.bits_per_note_10ms", "test.split", "test.notes"
REQUIREMENTS = (
    "mlflow",
    "miditok",
    "numpy",
    "pandas",
    "pydantic",
    "pyyaml",
    "safetensors",
    "symusic",
    "tokenizers",
    "torch",
    "einops",
    "tqdm",
)
"""Packages that inference imports; this library itself is packed as code."""


@dataclass(frozen=True)
class Score:
    """The test score of a model.

    Attributes:
        bits_per_note: Bits per note at 10 ms on the test split.
        split: Digest of the test split.
        notes: Number of notes in the test split.
    """

    bits_per_note: float
    split: str
    notes: int


@dataclass(frozen=True)
class Registered:
    """A version of the registered model.

    Attributes:
        version: Version number.
        is_new: Whether it was created by this call.
        is_champion: Whether it has the alias `champion`.
    """

    version: int
    is_new: bool
    is_champion: bool


def register_model(
    store: Store, run_id: str, *, folder: Path, score: Score | None, note: Callable[[int], str] | None = None
) -> Registered:
    """Registers the model of a run, unless its weights already have a version.

    Args:
        store: An open store.
        run_id: The run that trained the model.
        folder: Model folder.
        score: Test score; a model without one never replaces a champion.
        note: Composes the description of a version from its number; existing descriptions are not changed.

    Raises:
        UserError: If the folder is not a complete model, or the store does not answer.
    """
    digest = verify_artifact(folder, kind="model").digest
    with store.lock("registry"):
        version = store.ask(lambda: _version_of(store, digest))
        is_new = version is None
        if version is None:
            version = _create_version(store, run_id, _upload(store, run_id, folder, digest), digest)
        _link(store, run_id, version.tags[ID_TAG])
        number = int(version.version)
        _tag_score(store, number, score)
        if note is not None and not version.description:
            text = note(number)
            store.ask(lambda: store.client.update_model_version(MODEL, str(number), description=text))
        is_champion = _update_champion(store, number, score)
        return Registered(version=number, is_new=is_new, is_champion=is_champion)


def requirements() -> list[str]:
    """Lists the packages that serving needs, pinned to the installed versions without local suffixes."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def _version_of(store: Store, digest: str) -> ModelVersion | None:
    versions = store.client.search_model_versions(f"name = '{MODEL}' and tags.`{DIGEST_TAG}` = '{digest}'")
    return versions[0] if versions else None


def _upload(store: Store, run_id: str, folder: Path, digest: str) -> str:
    """Packs and uploads the model, resuming an interrupted upload; returns MLflow's id of the model."""
    client, tags = store.client, {DIGEST_TAG: digest}

    def find_or_create() -> str:
        query = f"tags.`{DIGEST_TAG}` = '{digest}'"
        known = client.search_logged_models([store.experiment_id], filter_string=query)
        if known:
            return str(known[0].model_id)
        made = client.create_logged_model(
            store.experiment_id, name=MODEL, source_run_id=run_id, tags=tags, model_type="pyfunc"
        )
        return str(made.model_id)

    model_id = store.ask(find_or_create)
    with tempfile.TemporaryDirectory() as temporary, without_links(folder) as plain:
        packed = Path(temporary) / "model"
        from mlflow.models import Model

        known = Model(model_id=model_id, model_uuid=model_id, run_id=run_id)
        pack_model(packed, folder=plain, mlflow_model=known)
        store.ask(lambda: client.log_model_artifacts(model_id, str(packed)))
    store.ask(lambda: client.finalize_logged_model(model_id, LoggedModelStatus.READY))
    return model_id


def pack_model(packed: Path, *, folder: Path, mlflow_model: Model | None = None) -> None:
    """Writes an MLflow model: code, weights, requirements, limits. Needs neither torch nor a network.

    MLflow derives the signature from the type hints of `Continuation.predict`. No input example is given,
    since MLflow would run it. Its check of requirements against the environment is disabled, since it is slow
    and they are read from that environment.
    """
    import mlflow.pyfunc
    from mlflow.utils import environment

    vars(environment)["warn_dependency_requirement_mismatches"] = lambda _requirements: None
    mlflow.pyfunc.save_model(
        path=str(packed),
        python_model=str(Path(__file__).parents[1] / "serving" / "pyfunc.py"),
        artifacts={"model": str(folder)},
        code_paths=[str(Path(coma_gen.core.errors.__file__).parents[1])],
        pip_requirements=requirements(),
        model_config=asdict(Limits()),
        mlflow_model=mlflow_model,
    )


def _create_version(store: Store, run_id: str, model_id: str, digest: str) -> ModelVersion:
    client, tags = store.client, {DIGEST_TAG: digest, ID_TAG: model_id}

    def find_or_create() -> ModelVersion:
        try:
            client.create_registered_model(MODEL, description=DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return _version_of(store, digest) or client.create_model_version(
            MODEL, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags
        )

    with as_default(store.address):
        return store.ask(find_or_create)


@contextmanager
def as_default(address: Address) -> Iterator[None]:
    """Makes a store MLflow's default, where its registry looks for the model of a new version."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = address.uri
    try:
        yield
    finally:
        if before is None:
            del os.environ["MLFLOW_TRACKING_URI"]
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def _link(store: Store, run_id: str, model_id: str) -> None:
    """Adds the model to the outputs of the run, once."""

    def add_output() -> None:
        outputs = store.client.get_run(run_id).outputs
        if outputs is None or all(output.model_id != model_id for output in outputs.model_outputs):
            store.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    store.ask(add_output)


def _tag_score(store: Store, number: int, score: Score | None) -> None:
    if score is None:
        return
    for name, value in (
        (BITS_TAG, repr(score.bits_per_note)),
        (SPLIT_TAG, score.split),
        (NOTES_TAG, str(score.notes)),
    ):
        store.ask(partial(store.client.set_model_version_tag, MODEL, str(number), name, value))


def _update_champion(store: Store, number: int, score: Score | None) -> bool:
    """Assigns the alias to this version by the rule above; returns whether it has it now."""
    client = store.client
    aliases = store.ask(lambda: client.get_registered_model(MODEL)).aliases
    if CHAMPION in aliases:
        holder = int(aliases[CHAMPION])
        if holder == number:
            return True
        tags = store.ask(lambda: client.get_model_version(MODEL, str(holder))).tags
        if score is None or not _is_better(score, tags):
            return False
    store.ask(lambda: client.set_registered_model_alias(MODEL, CHAMPION, str(number)))
    return True


def _is_better(score: Score, champion: Mapping[str, str]) -> bool:
    if any(name not in champion for name in (BITS_TAG, SPLIT_TAG, NOTES_TAG)):
        return False
    if champion[SPLIT_TAG] == score.split:
        return score.bits_per_note < float(champion[BITS_TAG])
    return score.notes > int(champion[NOTES_TAG])
