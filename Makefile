# `make demo` runs the pipeline, `make test` the tests; each target first installs its packages into .venv.
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

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 24

$(READY): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "coma-gen needs Python 3.11 or newer; name it: make PYTHON=/path/to/python3.12 demo"; exit 1; }
	@echo "Installing into $(VENV) (a few minutes, once) ..."
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 1; }
	@$(INSTALL) -e '.[pipeline,serve]'
	@git rev-parse --git-dir >/dev/null 2>&1 && test -z "$$GIT_AUTHOR_EMAIL$$(git config user.email)" && \
		git config user.name coma-gen && git config user.email coma-gen@localhost && \
		echo "git has no user name, which dvc exp run needs for its commits: set to coma-gen in this clone." && \
		echo "To use your own: git config user.name NAME; git config user.email ADDRESS" || true
	@$(BIN)/python -m coma_gen.workspace.plots_page || true # makes `dvc plots` work offline
	@touch $@

$(DEV_READY): $(READY)
	@echo "Installing the packages for tests, checks and benchmarks ..."
	@$(INSTALL) -e '.[pipeline,serve,scale,tensorboard,dev,bench,docs]'
	@touch $@

demo: $(READY) ## run the whole pipeline on ten MAESTRO performances and print a summary
	@git cat-file -e HEAD:./params.yaml 2>/dev/null || { echo "this is no git clone, which DVC and the demo need:"; \
		echo "  git clone coma-gen; or, of what an archive held:  git init && git add -A && git commit -m begin"; exit 1; }
	@git diff --quiet HEAD -- params.yaml || { echo "params.yaml is not the committed one, which the demo is:"; \
		echo "  git restore params.yaml    returns to it;    $(BIN)/dvc repro    runs yours"; exit 1; }
	@find .dvc/tmp -maxdepth 1 -name rwlock -size 0 -delete 2>/dev/null || true # a crash can leave it empty, which blocks dvc
	@$(BIN)/dvc repro
	@$(BIN)/coma-gen verify
	@$(BIN)/coma-gen summary

test: $(DEV_READY) ## run all tests, in up to four processes
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile $(ARGS)

check: lint ## check style and types, and run the quick tests; use before a commit
	@$(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile -m 'not slow' --ignore tests/faults $(ARGS)

faults: $(DEV_READY) ## run the full fault-injection tests (under 30 minutes) and update docs/reliability.md
	@COMA_FAULTS_TABLE=docs/reliability.md $(BIN)/python -m pytest tests/faults -m 'faults or not faults' \
		-n 4 --dist worksteal $(ARGS)

maestro: $(READY) ## run the pipeline on all of MAESTRO, sized for a GPU; ARGS='-S train.steps=1000' overrides settings
	@$(BIN)/coma-gen experiment maestro $(ARGS)
	@$(if $(filter --queue --temp,$(ARGS)),,$(BIN)/coma-gen result)

maestro-cpu: $(READY) ## the same, sized for two cores (about an hour)
	@$(BIN)/coma-gen experiment maestro-cpu $(ARGS)
	@$(if $(filter --queue --temp,$(ARGS)),,$(BIN)/coma-gen result)

pretrained: $(READY) ## train the pretrained model again (presets/maestro-cpu-bf16.yaml) and update pretrained/
	@$(BIN)/coma-gen experiment maestro-cpu-bf16 $(ARGS)
	@$(BIN)/python -m coma_gen.experiments.pretrained

samples: $(DEV_READY) ## update docs/samples.md with the pretrained model; needs data/ of all of MAESTRO
	@$(BIN)/python -m benchmarks.samples $(ARGS)

maestro-data: $(READY) ## run only the data stages on all of MAESTRO and print statistics
	@$(BIN)/coma-gen experiment maestro shard $(ARGS)
	@$(BIN)/coma-gen figures

ui: $(READY) ## open the MLflow UI on this machine
	@$(BIN)/coma-gen ui $(ARGS)

play: $(READY) ## continue your MIDI files on a page in your browser
	@$(BIN)/coma-gen play $(ARGS)

serve: $(READY) ## serve the best model over HTTP, on this machine only; ARGS='--port 5002'
	@$(BIN)/coma-gen serve $(ARGS)

bench: $(DEV_READY) ## compare speed with other packages, in under five minutes; ARGS='--device cuda' on a GPU
	@PYTHONSAFEPATH= $(BIN)/python -m benchmarks.all --short $(ARGS)

verify: $(READY) ## compare this build with the committed one
	@$(BIN)/coma-gen verify

lint: $(DEV_READY) ## check style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

format: $(DEV_READY) ## fix style and format
	@$(BIN)/ruff check --fix . && $(BIN)/ruff format .

docs: $(DEV_READY) ## build docs/ and the API reference as a site, in site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict # --quiet would hide the warnings that --strict counts

pictures: $(DEV_READY) ## take the screenshots of DVC and MLflow in docs/ again, in Chromium
	@$(BIN)/python .ci/make_pictures.py $(ARGS)

pins: $(READY) ## resolve all dependencies to their newest versions and write constraints.txt
	@$(BIN)/python .ci/write_pins.py
