"""The model in MLflow's registry: packed once for each set of weights, and the best one named `champion`.

Every tracked run shows the model it made. A version of the registered model `coma-gen` is made for weights
that have none yet, so that tracking again, or another experiment that ends with the same weights, adds
nothing. MLflow's own alias `latest` (models:/coma-gen/latest) is the newest version; the alias `champion`
(models:/coma-gen@champion) moves by rule:

    there is no champion yet           -> this model
    both were tested on the same split -> the one with fewer test bits per note at 10 ms
    on different splits                -> the one tested on more notes, as the demo's one test piece says less
                                          than MAESTRO's 177; their figures cannot be compared

A champion that a person named by hand, without a score, stays.
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
    "Continues piano performances: MIDI in, MIDI out. One version for each set of weights; `champion` is the "
    "one with the fewest test bits per note. The versions' descriptions say how good each is, and its use."
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
"""What continuing a prompt imports, besides the library itself, which is packed as code."""


@dataclass(frozen=True)
class Score:
    """How good a model is.

    Attributes:
        bits_per_note: on the test split, at 10 ms.
        split: digest of what it was tested on.
        notes: of the test split.
    """

    bits_per_note: float
    split: str
    notes: int


@dataclass(frozen=True)
class Registered:
    """A version of the registered model.

    Attributes:
        version: its number.
        is_new: whether it was made now.
        is_champion: whether it has the alias.
    """

    version: int
    is_new: bool
    is_champion: bool


def register_model(
    store: Store, run_id: str, *, folder: Path, score: Score | None, note: Callable[[int], str] | None = None
) -> Registered:
    """Registers a run's model, unless its weights already have a version.

    Args:
        store: an open store.
        run_id: the run that made it.
        folder: the model's folder, complete for sampling.
        score: how good it is; without one it never becomes the champion in another's place.
        note: what describes a version, given its number; one that is described already stays so.

    Raises:
        UserError: when the folder is no whole model, or the store does not answer.
    """
    digest = verify_artifact(folder, kind="model").digest
    with store.lock("registry"):
        version = store.ask(lambda: _version_of(store, digest))
        is_new = version is None
        if version is None:
            version = _new_version(store, run_id, _packed(store, run_id, folder, digest), digest)
        _link(store, run_id, version.tags[ID_TAG])
        number = int(version.version)
        _score(store, number, score)
        if note is not None and not version.description:
            text = note(number)
            store.ask(lambda: store.client.update_model_version(MODEL, str(number), description=text))
        return Registered(version=number, is_new=is_new, is_champion=_crown(store, number, score))


def requirements() -> list[str]:
    """The packages that serving needs, at the versions installed here, without a build's own suffix."""
    return [f"{name}=={version(name).split('+')[0]}" for name in REQUIREMENTS]


def _version_of(store: Store, digest: str) -> ModelVersion | None:
    versions = store.client.search_model_versions(f"name = '{MODEL}' and tags.`{DIGEST_TAG}` = '{digest}'")
    return versions[0] if versions else None


def _packed(store: Store, run_id: str, folder: Path, digest: str) -> str:
    """Packs the model and hands it to the store; returns MLflow's id of it.

    A model that an interruption left half-sent is taken up again.
    """
    client, tags = store.client, {DIGEST_TAG: digest}

    def found_or_made() -> str:
        query = f"tags.`{DIGEST_TAG}` = '{digest}'"
        known = client.search_logged_models([store.experiment_id], filter_string=query)
        if known:
            return str(known[0].model_id)
        made = client.create_logged_model(
            store.experiment_id, name=MODEL, source_run_id=run_id, tags=tags, model_type="pyfunc"
        )
        return str(made.model_id)

    model_id = store.ask(found_or_made)
    with tempfile.TemporaryDirectory() as temporary, without_links(folder) as plain:
        packed = Path(temporary) / "model"
        from mlflow.models import Model

        known = Model(model_id=model_id, model_uuid=model_id, run_id=run_id)
        pack_model(packed, folder=plain, mlflow_model=known)
        store.ask(lambda: client.log_model_artifacts(model_id, str(packed)))
    store.ask(lambda: client.finalize_logged_model(model_id, LoggedModelStatus.READY))
    return model_id


def pack_model(packed: Path, *, folder: Path, mlflow_model: Model | None = None) -> None:
    """Writes an MLflow model: code, weights, requirements, limits; without torch or a network.

    MLflow takes the signature from the type hints of `Continuation.predict`. It is given no example of a
    request, since it would answer that here: with torch, and music of that length. It is kept from searching
    the whole environment for packages that differ from the requirements, since those are read from there.
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


def _new_version(store: Store, run_id: str, model_id: str, digest: str) -> ModelVersion:
    client, tags = store.client, {DIGEST_TAG: digest, ID_TAG: model_id}

    def found_or_made() -> ModelVersion:
        try:
            client.create_registered_model(MODEL, description=DESCRIPTION)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return _version_of(store, digest) or client.create_model_version(
            MODEL, source=f"models:/{model_id}", run_id=run_id, model_id=model_id, tags=tags
        )

    with as_default(store.address):
        return store.ask(found_or_made)


@contextmanager
def as_default(address: Address) -> Iterator[None]:
    """Makes a store MLflow's default: its registry looks there for the model that a version is made of."""
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
    """Shows the model among the run's outputs, once."""

    def linked() -> None:
        outputs = store.client.get_run(run_id).outputs
        if outputs is None or all(output.model_id != model_id for output in outputs.model_outputs):
            store.client.log_outputs(run_id, [LoggedModelOutput(model_id, step=0)])

    store.ask(linked)


def _score(store: Store, number: int, score: Score | None) -> None:
    if score is None:
        return
    for name, value in (
        (BITS_TAG, repr(score.bits_per_note)),
        (SPLIT_TAG, score.split),
        (NOTES_TAG, str(score.notes)),
    ):
        store.ask(partial(store.client.set_model_version_tag, MODEL, str(number), name, value))


def _crown(store: Store, number: int, score: Score | None) -> bool:
    """Gives the alias to this version where the rule says so; whether it has it now."""
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
