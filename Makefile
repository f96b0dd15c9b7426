# Needs Python 3.11 or newer, make and a package index; everything else lands in .venv.
PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
# Idle OpenMP threads must sleep soon: two torch processes that spin on the same cores slow each other a hundredfold.
export OMP_WAIT_POLICY ?= PASSIVE
export GOMP_SPINCOUNT ?= 2000
# Where it is set, every process would compile all modules of .venv again, which takes 7 s.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help run test lint format clean

help:  ## list what can be made
	@awk -F ':.*## ' '/^[.a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.venv: $(VENV)/.installed  ## build the environment
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "distdiff needs Python 3.11 or newer: make PYTHON=/path/to/python3.11"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@# --no-compile, since two thirds of all modules are never imported; those that commands import are compiled once here
	@echo "installing into .venv (a few minutes the first time)"
	@$(BIN)/python -m pip install -q --no-compile --disable-pip-version-check -c constraints.txt -e '.[test]'
	@$(BIN)/python -c 'import distdiff.console.quiet as q; q.quiet_environment(); import distdiff.commands.run, wandb.sdk.wandb_run'
	@touch $@

run: .venv  ## the whole study: guide, prototypes, expand, measure, train, report
	@$(BIN)/python experiments/run.py

test: .venv lint  ## lint, then every test, two files at a time (JOBS=4: four)
	@# On two cores a third process saves no time: it imports and caches all anew, and the others take longer.
	@# --max-worker-restart 0: a worker that dies is named and ends the run, which would wait for it forever otherwise
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0

lint: .venv  ## check style
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

format: .venv  ## rewrite in the house style
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:  ## remove the environment and every cached stage; runs and expanded data stay
	rm -rf $(VENV) outputs/cache
