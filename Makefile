# Needs python3 (3.11 or newer) and make; everything else is installed into .venv.

PYTHON ?= python3
JOBS ?= 2
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
MANIFEST := pyproject.toml constraints.txt
RUN_READY := $(VENV)/.ready-to-run
DEV_READY := $(VENV)/.ready-to-develop

.DEFAULT_GOAL := help
.PHONY: help install develop demo test test-deps lint format clean

help: ## Show this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: $(RUN_READY) ## Create .venv and install the command infosam

develop: $(DEV_READY) ## Also install what tests and linters need

demo: $(RUN_READY) ## A finished sweep in a few minutes, no data needed
	$(BIN)/infosam demo

test: $(DEV_READY) ## Run all tests, JOBS=2 files at a time (ARGS="-k bundle -x" is passed on to pytest)
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations=40 $(ARGS)

test-deps: ## Install what tests need from Debian's packages
	@scripts/test-deps

lint: $(DEV_READY) ## Check style, formatting and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(DEV_READY) ## Rewrite the code in the one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## Remove .venv and caches; results in infosam-runs stay
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache infosam.egg-info build

# The two stamps are older than pyproject.toml or constraints.txt when something has to be installed again.
$(RUN_READY): $(MANIFEST) | $(BIN)/python
	$(PIP) install --quiet --upgrade pip
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(DEV_READY): $(RUN_READY)
	$(PIP) install --quiet -c constraints.txt -e '.[server,test,dev]'
	@touch $@

$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is not installed; Python 3.11 or newer is needed" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if v >= (3, 11) else f"make: Python 3.11 or newer is needed, $(PYTHON) is {v[0]}.{v[1]}; name another with make PYTHON=python3.12")'
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { echo "make: $(PYTHON) cannot create environments; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@echo "creating $(VENV) and installing into it; the first time this downloads some gigabytes and takes minutes"
	$(PYTHON) -m venv $(VENV)
