# Everything a person or a machine does with this checkout. Needs Python 3.11 or later and make; the rest is set up here.

PYTHON ?= $(firstword $(foreach p,python3 python3.13 python3.12 python3.11 python,\
	$(if $(shell $(p) -c 'import sys; print(sys.version_info >= (3, 11) or "")' 2>/dev/null),$(p))))
VENV ?= .venv
ARGS ?=

# PYTHONPATH and a virtual environment of the caller's must not leak into ours.
unexport PYTHONPATH PYTHONHOME VIRTUAL_ENV
export PIP_DISABLE_PIP_VERSION_CHECK := 1

PY := $(VENV)/bin/python
PIP := $(PY) -m pip install --quiet --no-input
LOCKED := --require-hashes --requirement
COMPILE := $(PY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)
CODE := coordination agents backend config benchmarks examples tests
PRESENT = $(wildcard $(CODE))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-dev demo dev check format model test test-pythons test-lowest test-browser chaos bench lock wheel clean

help:  ## List what can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(VENV)/.run  ## Make the environment that the demo needs
setup-dev: $(VENV)/.dev  ## Make the environment that checks and tests need

demo: setup  ## A whole call with three agents, in a real room, on this machine
	$(PY) -m agents demo $(ARGS)

dev: setup  ## Keep the agents up and open a page to talk to them
	$(PY) -m agents dev $(ARGS)

check: setup-dev  ## Format, lint, types, imports
	$(VENV)/bin/ruff format --check $(PRESENT)
	$(VENV)/bin/ruff check $(PRESENT)
	$(VENV)/bin/lint-imports
	$(VENV)/bin/pyright --pythonpath $(PY)

format: setup-dev  ## Put the code into the shape that `make check` wants
	$(VENV)/bin/ruff format $(PRESENT)
	$(VENV)/bin/ruff check --fix $(PRESENT)

model:  ## Check the model of the floor protocol, every state of it (needs spin and a C compiler)
	@$(PYTHON) tests/model/check.py

test: setup-dev  ## All tests, a real livekit-server included (ARGS="-k name" for some)
	$(PY) -m coordination.dev livekit-server --program-only >/dev/null
	$(PY) -m pytest --ignore=tests/browser -n 2 --dist loadgroup $(ARGS)

test-pythons: setup-dev  ## Unit and store tests on every other Python that this machine has
	@PY="$(PY)" VENV="$(VENV)" bash tests/pythons.sh

test-lowest: setup-dev  ## Unit and store tests with the lowest versions that pyproject.toml allows
	@test -x $(VENV)-lowest/bin/python || $(PY) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --no-input $(LOCKED) requirements-build.lock
	$(VENV)-lowest/bin/python -m pip install --quiet --no-input $(LOCKED) requirements-lowest.lock
	$(VENV)-lowest/bin/python -m pip install --quiet --no-input --no-deps --no-build-isolation --editable .
	$(VENV)-lowest/bin/python -m pytest tests/unit tests/store $(ARGS)

test-browser: setup-dev  ## The page of `make dev` in headless Chromium
	$(PY) -m coordination.dev livekit-server --program-only >/dev/null
	$(PY) -m pytest tests/browser $(ARGS)

chaos: setup-dev  ## CALLS=1 under random faults for MINUTES=30, judged afterwards (SEED=n repeats a schedule)
	$(PY) -m coordination.dev livekit-server --program-only >/dev/null
	CHAOS_MINUTES=$(or $(MINUTES),30) CHAOS_CALLS=$(or $(CALLS),1) CHAOS_SEED=$(SEED) $(PY) -m pytest -s tests/chaos/test_mutants_calls.py tests/chaos/test_chaos_calls.py $(ARGS)

bench: setup-dev  ## Measure, and print PASS or FAIL for each target
	$(PY) -m coordination.dev livekit-server --program-only >/dev/null
	$(PY) -m benchmarks $(ARGS)

lock: setup-dev  ## Write the lock files again (UPGRADE=1 for newer versions)
	$(COMPILE) --group build --output-file requirements-build.lock
	$(COMPILE) pyproject.toml --all-extras --constraint requirements-build.lock --output-file requirements.lock
	$(COMPILE) pyproject.toml --all-extras --group dev --constraint requirements.lock --output-file requirements-dev.lock
	$(COMPILE) pyproject.toml --all-extras --group test --resolution lowest-direct --output-file requirements-lowest.lock

wheel: setup-dev  ## Build the wheel into dist/
	$(PY) -m hatchling build --target wheel

clean:  ## Remove the environment and what builds leave behind
	rm -rf $(VENV) $(VENV)-* build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or later found. Install one, or name it: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is not Python 3.11 or later. Name another: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "$(PYTHON) has no venv module. On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	@test -x $(PY) || { echo "Making $(VENV) with $$($(PYTHON) --version)"; $(PYTHON) -m venv --clear $(VENV); }
	@touch $@

# The project is installed as an editable checkout, so that `baton` and its version are there; its build needs no network.
$(VENV)/.run: requirements.lock requirements-build.lock pyproject.toml | $(VENV)/.made
	@echo "Installing what the lock files name into $(VENV)"
	@$(PIP) $(LOCKED) requirements-build.lock
	@$(PIP) $(LOCKED) requirements.lock
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "Installing the development tools into $(VENV)"
	@$(PIP) $(LOCKED) requirements-dev.lock
	@touch $@
