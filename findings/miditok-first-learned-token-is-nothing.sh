#!/usr/bin/env bash
# The first token that miditok learns by byte-pair encoding decodes to nothing.
#
# Version: miditok 3.1.0, tokenizers 0.23.3.
# A good guess: Each id beyond the base vocabulary stands for two or more base tokens, and a model may assign
#     probability to any id below len(tokenizer).
# Behavior: The first new id is the word-start marker, which never occurs alone in encoded music and decodes to the
#     empty list. It counts in len(tokenizer) and vocab_size, so a model has an output for it, and sampling may draw
#     a token that adds nothing to the music.
# Output seen: of 20 learned ids, the first decodes to [], every other one to two base tokens or more.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
cd "$place"
python3 -m venv venv
venv/bin/pip install --quiet --disable-pip-version-check miditok==3.1.0 symusic==0.6.0 numpy==2.4.6 tokenizers==0.23.3

venv/bin/python -W ignore - <<'PY' 2>said || { status=$?; tail -3 said; exit $status; }
import sys
from pathlib import Path

from miditok import REMI, TokenizerConfig, TokSequence
from symusic import Note, Score, Track

files = []
for seed in range(3):
    score, piano = Score(480), Track("piano", 0, False)
    for number in range(64):
        piano.notes.append(Note(240 * number, 240, 60 + (seed + number * number) % 12, 64 + 4 * (number % 3)))
    score.tracks.append(piano)
    score.dump_midi(f"{seed}.mid")
    files.append(Path(f"{seed}.mid"))
tokenizer = REMI(TokenizerConfig())
base = len(tokenizer)
tokenizer.train(vocab_size=base + 20, files_paths=files)
lengths = []
for number in range(base, len(tokenizer)):
    tokens = TokSequence(ids=[number], are_ids_encoded=True)
    tokenizer.decode_token_ids(tokens)
    lengths.append(len(tokens.ids))
print("base tokens of each learned id:", lengths)
if lengths[0] != 0 or min(lengths[1:]) < 2:
    sys.exit("changed: the first learned id stands for something")
PY
