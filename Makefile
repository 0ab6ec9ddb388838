# Everything there is to do here. `make` alone prints this list.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
# Where it is set, every process compiles all of Sokovan anew: a third of the time of a start.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
FAST := not real and not postgres and not faults and not browser and not slow

# The development set contains the runtime set: where it is installed, the demo uses it.
RUNTIME := $(if $(wildcard $(VENV)/.dev),$(VENV)/.dev,$(VENV)/.runtime)

.PHONY: help
help: ## Print this list
	@awk -F ':.*## ' '/^[a-z.]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' Makefile

.PHONY: demo
demo: $(RUNTIME) ## See it work: a real manager, a real agent, real sessions
	@$(BIN)/python demo/demo.py

.PHONY: test
test: $(VENV)/.dev ## Run every test that this machine can run
	@$(BIN)/python -m pytest -q

.PHONY: check
check: $(VENV)/.dev ## Format, lint, types, imports, spelling, fast tests
	@$(PIP) check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/codespell
	$(BIN)/python -m pytest -q -n 2 -m "$(FAST)"

.PHONY: format
format: $(VENV)/.dev ## Format the code and mend what lint can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

.PHONY: client
client: $(VENV)/.dev ## Write the client without an event loop from the one with
	@$(BIN)/python scripts/sync_client.py

.PHONY: docs
docs: $(VENV)/.dev ## Write the reference pages that follow from the code
	@$(BIN)/python docs/generate.py

.PHONY: bench
bench: $(RUNTIME) ## Measure throughput, latency and, where its generator is, placement
	$(BIN)/python benchmarks/throughput.py
	$(BIN)/python benchmarks/latency.py
	@if [ -e ../shared/bench/workload.py ]; then $(BIN)/python benchmarks/placement.py; \
	else echo "placement is not measured: ../shared/bench is not there"; fi

# `make lock UPGRADE=--upgrade` takes the newest versions; without it, pins change only where they must.
UPGRADE ?=
COMPILE = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-header --no-emit-index-url --no-emit-find-links $(UPGRADE)

# FOR=8h runs for eight hours; FAULTS=storm has more go wrong. A failing seed is kept in .soak.
FOR ?= 1h
FAULTS ?= rough
FIRST ?= $(shell date +%s)

.PHONY: soak
soak: $(RUNTIME) ## Simulate seed after seed for as long as FOR says (1h), and keep those that fail
	@$(BIN)/sokovan sim --seed $(FIRST) --for $(FOR) --faults $(FAULTS) --keep .soak

.PHONY: lock
lock: ## Write requirements.lock and requirements-dev.lock from pyproject.toml
	@[ -x $(BIN)/uv ] || $(MAKE) --no-print-directory $(VENV)/.dev
	$(COMPILE) pyproject.toml --output-file requirements.lock
	$(COMPILE) pyproject.toml --group dev --constraint requirements.lock --output-file requirements-dev.lock
	@! grep -n '://' requirements.lock requirements-dev.lock || { echo "a lock must name no address"; exit 1; }

.PHONY: clean
clean: ## Remove the environment, caches and build output
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis \
		.coverage .coverage.* htmlcov build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---------------------------------------------------------------- the environment

$(VENV): $(VENV)/.dev ## Install the development environment

# A lock is the whole answer: with --no-deps, pip asks no index what else there could be. Without,
# Debian's pip takes the newest release of what is needed with an extra, and finds it not in the lock.
# `make check` then asks whether everything that is needed is there.
$(VENV)/.runtime: requirements.lock pyproject.toml | $(BIN)/pip
	@echo "installing what sokovan needs into $(VENV) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(VENV)/.dev: requirements-dev.lock pyproject.toml | $(BIN)/pip
	@echo "installing what sokovan and its tests need into $(VENV) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements-dev.lock
	@$(PIP) install --no-deps -e .
	@touch $@

$(BIN)/pip:
	@command -v $(PYTHON) >/dev/null || { \
		echo "Sokovan needs Python 3.11 or newer, and '$(PYTHON)' is not on PATH." >&2; \
		echo "On Debian or Ubuntu: sudo apt-get install python3 python3-venv" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Sokovan needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) --version 2>&1)." >&2; \
		echo "Install a newer one (Debian 12 has it: sudo apt-get install python3 python3-venv)," >&2; \
		echo "or name another: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { \
		echo "Sokovan needs Python's venv module, and '$(PYTHON)' has none." >&2; \
		echo "On Debian or Ubuntu: sudo apt-get install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$($(PYTHON) --version) ..."
	@$(PYTHON) -m venv $(VENV)
