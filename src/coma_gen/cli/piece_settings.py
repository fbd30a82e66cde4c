"""The content of settings.json, which reproduces generated pieces; contains no dates or machine paths."""

from __future__ import annotations

import argparse
import os
import shlex
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coma_gen.generation.music_generator import MusicGenerator
    from coma_gen.generation.request import Request
    from coma_gen.midi.prompt import Prompt

VERSIONS = ("coma-gen", "torch", "numpy", "symusic", "matplotlib", "soundfile")
"""Packages that the output bytes depend on."""
PULLS = ("density", "loudness", "register", "polyphony")
"""Settings for which 0 means off."""
OPTIONS = {"until_second": "--from", "follow": "--no-follow"}
"""Options whose names differ from their settings."""


def option_of(setting: str) -> str:
    """The command-line option of a setting."""
    return OPTIONS.get(setting, f"--{setting.replace('_', '-')}")


def piece_settings(
    options: argparse.Namespace, request: Request, composer: MusicGenerator, prompt: Prompt | None
) -> dict[str, Any]:
    """Collects the command that reproduces the pieces, and everything that they depend on."""
    from coma_gen.core.io import shown_name
    from coma_gen.generation.request import Request
    from coma_gen.tracking.model_store import is_uri
    from coma_gen.workspace.pretrained import NAME as PRETRAINED

    settings = {
        **asdict(request),
        "audio": options.audio,
        "device": options.device,
        "threads": options.threads,
    }
    words = ["coma-gen", "generate"]
    if prompt is not None:
        words.append(_escape_dash(Path(options.prompt).name))
    if options.model is not None and (is_uri(options.model) or options.model == PRETRAINED):
        words += ["--model", options.model]
    for name, value in settings.items():
        if isinstance(value, bool):
            if value is not getattr(Request, name):
                words.append(option_of(name))
        elif value is not None and (name not in PULLS or value):
            option = option_of(name)
            words += [f"{option}={value}"] if str(value).startswith("-") else [option, str(value)]
    manifest = composer.loaded.manifest
    return {
        "command": " ".join(map(_quote, words)),
        "model": {"digest": manifest.digest, "tokenizer": composer.tokenizer.digest},
        "prompt": prompt and {"file": shown_name(Path(options.prompt)), "sha256": prompt.digest},
        "settings": settings,
        "versions": {name: _find_version(name) for name in VERSIONS},
    }


def _escape_dash(name: str) -> str:
    return f"./{name}" if name.startswith("-") else name


def _quote(word: str) -> str:
    """Quotes a word for the shell; a word that is not valid UTF-8 is quoted by its bytes."""
    try:
        word.encode("utf-8")
    except UnicodeEncodeError:
        return "$'" + "".join(f"\\x{byte:02x}" for byte in os.fsencode(word)) + "'"
    return shlex.quote(word)


def _find_version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
