# Everything runs in .venv, which is built from the pinned requirements when it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help bench fuzz test check format clean
.DELETE_ON_ERROR:

help:  ## these lines
	@sed -n 's/^\([a-z]*\):.*## /  make \1	/p' $(MAKEFILE_LIST)

bench: $(READY)  ## a first look at the main question: joins by local view and by remote query
	$(BIN)/eventmesh bench run join-scaling --quick

fuzz: $(READY)  ## 2,000 seeds with faults; goes on where it was stopped, results in fuzz/
	$(BIN)/eventmesh fuzz --seeds 2000 --resume

# Tests that share nothing run on both cores of a small machine. Those that start Ray, time out or load this machine run
# one after the other: docs/decisions/0060-two-ways-of-running-tests.md.
BESIDE := tests/commands tests/process tests/simulation tests/tidy tests/tiny tests/unit
ALONE := tests/benchmarks tests/contract tests/on_ray

test: check  ## the checks, then every test
	@failed=0; \
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal $(BESIDE) || failed=1; \
	$(BIN)/python -m pytest $(ALONE) || failed=1; \
	exit $$failed

check: $(READY)  ## style, types and the layers of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY)  ## what ruff can mend by itself
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## forget the environment and every cache
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info build

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "eventmesh needs Python 3.11 or later; name one: make PYTHON=python3.12" >&2; exit 2; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
