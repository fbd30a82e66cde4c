"""Resolves the name of a trained model to its folder: a local folder or a model in MLflow."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coma_gen.core.artifact import MANIFEST
from coma_gen.core.errors import Fault, UserError
from coma_gen.core.extras import require_extra
from coma_gen.tracking.uri import SQLITE, Address, check_address
from coma_gen.workspace.paths import Workspace
from coma_gen.workspace.pretrained import NAME as PRETRAINED
from coma_gen.workspace.pretrained import find_pretrained


def is_uri(text: str) -> bool:
    """Whether the name of a model is an MLflow URI, such as models:/coma-gen@champion, and not a folder."""
    return re.match(r"[a-z][a-z0-9+.-]+:/", text) is not None


@contextmanager
def named_model(named: str | None, workspace: Workspace | None, *, option: str = "--model") -> Iterator[Path]:
    """Provides the folder of a model.

    Args:
        named: A folder, an MLflow URI, or `pretrained` for the model that ships with the project. None for
            the model that was trained in the checkout, or else the pretrained one.
        workspace: The current checkout, or None outside of any.
        option: The command-line option that names a model, for error messages.

    Raises:
        UserError: If there is no such model, or MLflow does not provide it.
    """
    if named is not None and is_uri(named):
        with download_model(named, workspace.home if workspace else Path.cwd()) as folder:
            yield folder
        return
    folder = _local_model(named, workspace, option)
    if not (folder / MANIFEST).is_file():
        got = "nothing"
        if folder.exists():
            got = f"a folder without {MANIFEST}" if folder.is_dir() else "a file"
        remedy = f"train one with `dvc repro`, or name one with {option}"
        raise UserError(
            Fault(str(folder), "must be a model's folder, as the train stage writes it", got, remedy)
        )
    yield folder


def _local_model(named: str | None, workspace: Workspace | None, option: str) -> Path:
    """Resolves a model name that is not a URI."""
    if named is not None and named != PRETRAINED:
        return Path(named)
    trained = None if named or workspace is None else workspace.data("model")
    if trained is not None and trained.exists():
        return trained
    if pretrained := find_pretrained():
        return pretrained
    if named is None and trained is not None:
        return trained
    rule = "must be named where no model comes with the installation"
    raise UserError(Fault(option, rule, named or "none", f"name a model's folder with {option}"))


@contextmanager
def download_model(uri: str, home: Path) -> Iterator[Path]:
    """Downloads a model from MLflow to a temporary folder, which is deleted when the block ends.

    Args:
        uri: Any URI that MLflow resolves: models:/coma-gen@champion, models:/coma-gen/3, runs:/...
        home: The permanent checkout.

    Raises:
        UserError: If there is no tracking store, it does not answer, it has no such model, or the model was
            not registered by coma-gen.
    """
    find_model_store(uri, home)
    with tempfile.TemporaryDirectory(prefix="coma-gen-model-") as temporary:
        _download(uri, home, Path(temporary))
        found = sorted(Path(temporary).rglob(MANIFEST), key=lambda path: len(path.parts))
        if not found:
            rule = "must be a model that coma-gen registered"
            raise UserError(Fault(uri, rule, f"one without a {MANIFEST}"))
        yield found[0].parent


def find_model_store(uri: str, home: Path) -> Address:
    """Locates the tracking store that a model would be in.

    Raises:
        UserError: If there is no tracking store.
    """
    require_extra("serve", where=uri)
    address = check_address(home)
    if address.artifacts is not None and not Path(address.uri.removeprefix(SQLITE)).exists():
        remedy = "`make demo` trains one; or set MLFLOW_TRACKING_URI to the store that has it"
        raise UserError(Fault(uri, f"must be in the store at {address.shown}", "no store there", remedy))
    return address


def _download(uri: str, home: Path, destination: Path) -> None:
    from mlflow.artifacts import download_artifacts

    from coma_gen.tracking.client import MlflowException, SQLAlchemyError
    from coma_gen.tracking.registry import as_default

    address = check_address(home)
    try:
        with as_default(address):
            download_artifacts(artifact_uri=uri, dst_path=str(destination))
    except (MlflowException, SQLAlchemyError, OSError) as error:
        got = str(error).replace(address.uri, address.shown).strip().splitlines()[0]
        raise UserError(Fault(uri, f"must name a model that MLflow at {address.shown} has", got)) from None
