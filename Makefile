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
PIP := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)
LINE_EVERY_S := 20

# step WHAT COMMAND...: say WHAT, run COMMAND, say how long it took; without a terminal also that it is still running.
STEP = step() { \
	what=$$1; shift; begin=$$(date +%s); echo "$$what"; \
	[ -t 1 ] || while sleep $(LINE_EVERY_S) </dev/null >/dev/null 2>&1 && kill -0 $$$$ 2>/dev/null; do \
		echo "  still $$what: $$(($$(date +%s) - begin)) s"; done & beat=$$!; \
	"$$@"; status=$$?; kill $$beat 2>/dev/null; wait $$beat 2>/dev/null; \
	took="$$(($$(date +%s) - begin)) s"; \
	if [ $$status = 0 ]; then echo "  took $$took"; else echo "  failed after $$took: see above"; fi; \
	return $$status; }

.PHONY: train venv test test-slow test-slurm test-gpu test-matrix test-all faults check format clean

train: venv
	$(BIN)/remctl train --game $(GAME) --preset $(PRESET) $(ARGS)

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "remctl needs Python 3.11 or newer: make PYTHON=python3.11 ..."; exit 1; }
	@$(STEP); quiet=--quiet; [ ! -t 1 ] || quiet=; \
	step "creating $(VENV) with $$($(PYTHON) --version)" $(PYTHON) -m venv $(VENV) && \
	step "installing torch $(TORCH) (200 MB for CPUs, 3 GB with CUDA, as your package index has it)" \
		$(PIP) $$quiet torch && \
	step "installing remctl and what else it needs" $(PIP) $$quiet --editable '.[dev]'
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

test-matrix:  # every Python here with the oldest and the newest torch: downloads several GB for each
	$(PYTHON) tests/matrix.py $(ARGS)

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
