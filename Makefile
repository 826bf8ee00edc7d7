# make train: set up .venv and train; make test: set up and test. Needs Python >= 3.11, make and git, nothing else.

PYTHON ?= python3
GAME ?= Pong
PRESET ?= quick
ARGS ?=
# a worker per core; the tests that took longest; an end, by name, for what does not even answer its time limit
SIDE_BY_SIDE := --numprocesses auto --dist worksteal --durations 10 --durations-min 2 \
	--override-ini faulthandler_timeout=240 --override-ini faulthandler_exit_on_timeout=true

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: train venv test test-slow test-slurm test-gpu test-all faults check format clean

train: venv
	$(BIN)/remctl train --game $(GAME) --preset $(PRESET) $(ARGS)

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "remctl needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

test: venv
	$(BIN)/python -m pytest -m 'not slow and not slurm' $(SIDE_BY_SIDE)

test-slow: venv
	$(BIN)/python -m pytest -m 'slow and not slurm'

test-slurm: venv
	$(BIN)/python -m pytest -m slurm tests/slurm

test-gpu: venv  # one process each: a failed capture leaves its process unusable
	@failed=0; for test in $$($(BIN)/python -m pytest -q -m cuda --collect-only | grep ::); do \
		$(BIN)/python -m pytest -q "$$test" || failed=1; done; exit $$failed

faults: venv
	$(BIN)/python -m tests.faults

test-all: venv
	$(BIN)/python -m pytest

check: venv
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: venv
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
