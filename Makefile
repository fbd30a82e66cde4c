# Two commands do everything: `make demo` and `make test`. Each first installs into .venv what it needs.
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed
DEV_READY := $(VENV)/.installed-dev
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test check faults maestro maestro-cpu maestro-data pretrained samples ui play serve bench verify lint format docs pictures pins

help: ## what can be made
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "coma-gen needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3.12 demo"; exit 1; }
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(INSTALL) -e '.[pipeline,serve]'
	@git rev-parse --git-dir >/dev/null 2>&1 && test -z "$$GIT_AUTHOR_EMAIL$$(git config user.email)" && \
		git config user.name coma-gen && git config user.email coma-gen@localhost && \
		echo "git knows no name for you, and dvc exp run keeps experiments as commits: in this clone it is coma-gen now." && \
		echo "To be named yourself: git config user.name NAME; git config user.email ADDRESS" || true
	@$(BIN)/python -m coma_gen.workspace.plots_page || true # `dvc plots` without a network
	@touch $@

$(DEV_READY): $(READY)
	@echo "Installing what tests, checks and benchmarks need ..."
	@$(INSTALL) -e '.[pipeline,serve,scale,tensorboard,dev,bench,docs]'
	@touch $@

demo: $(READY) ## the whole pipeline on ten MAESTRO performances, then what came out
	@git cat-file -e HEAD:./params.yaml 2>/dev/null || { echo "this is no git clone, which DVC and the demo need:"; \
		echo "  git clone coma-gen; or, of what an archive held:  git init && git add -A && git commit -m begin"; exit 1; }
	@git diff --quiet HEAD -- params.yaml || { echo "params.yaml is not the committed one, which the demo is:"; \
		echo "  git restore params.yaml    returns to it;    $(BIN)/dvc repro    runs yours"; exit 1; }
	@find .dvc/tmp -maxdepth 1 -name rwlock -size 0 -delete 2>/dev/null || true # a crash can leave it empty, and dvc stuck
	@$(BIN)/dvc repro
	@$(BIN)/coma-gen verify
	@$(BIN)/coma-gen summary

test: $(DEV_READY) ## all tests, in up to four processes
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

check: lint ## style, types and the quick tests: before a commit
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m 'not slow' --ignore tests/faults $(ARGS)

faults: $(DEV_READY) ## every fault in its whole form, under 30 minutes; writes the table of docs/reliability.md
	@COMA_FAULTS_TABLE=docs/reliability.md $(BIN)/python -m pytest tests/faults -m 'faults or not faults' \
		-n 4 --dist worksteal $(ARGS)

maestro: $(READY) ## the same on all of MAESTRO, for a GPU, as an experiment; ARGS='-S train.steps=1000' overrides
	@$(BIN)/coma-gen experiment maestro $(ARGS)
	@$(if $(filter --queue --temp,$(ARGS)),,$(BIN)/coma-gen result)

maestro-cpu: $(READY) ## the same, with a model sized for two cores
	@$(BIN)/coma-gen experiment maestro-cpu $(ARGS)
	@$(if $(filter --queue --temp,$(ARGS)),,$(BIN)/coma-gen result)

pretrained: $(READY) ## what lies in pretrained/, made anew: MAESTRO with presets/maestro-cpu-bf16.yaml, then its card
	@$(BIN)/coma-gen experiment maestro-cpu-bf16 $(ARGS)
	@$(BIN)/python -m coma_gen.experiments.pretrained

samples: $(DEV_READY) ## docs/samples.md made anew with the pretrained model: sounds, pictures, tables; needs MAESTRO's data/
	@$(BIN)/python -m benchmarks.samples $(ARGS)

maestro-data: $(READY) ## only the data stages of it, and their figures
	@$(BIN)/coma-gen experiment maestro shard $(ARGS)
	@$(BIN)/coma-gen figures

ui: $(READY) ## the MLflow UI on this machine
	@$(BIN)/coma-gen ui $(ARGS)

play: $(READY) ## a page in your browser on which the model continues your MIDI files
	@$(BIN)/coma-gen play $(ARGS)

serve: $(READY) ## the best model over HTTP, on this machine only; ARGS='--port 5002'
	@$(BIN)/coma-gen serve $(ARGS)

bench: $(DEV_READY) ## how fast it is, beside others, in under five minutes; ARGS='--device cuda' on a GPU
	@PYTHONSAFEPATH= $(BIN)/python -m benchmarks.all --short $(ARGS)

verify: $(READY) ## holds this build against the committed one
	@$(BIN)/coma-gen verify

lint: $(DEV_READY) ## style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(DEV_READY) ## mends style and format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(DEV_READY) ## the pages of docs/ and the API reference as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

pictures: $(DEV_READY) ## the pictures of docs/experiments.md, of DVC and MLflow in a real Chromium
	@$(BIN)/python .ci/make_pictures.py $(ARGS)

pins: $(READY) ## resolve all dependencies anew, newest first, and write constraints.txt; then `make test` and `make demo`
	@$(BIN)/python .ci/write_pins.py
