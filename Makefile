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

# docs/decisions/0072-tests-without-time-beside-those-on-ray.md: tests that know no time of day go beside those that start
# Ray, behind everything else on the machine; they take the half of it that is left. The others come before.
BEFORE := tests/commands tests/delivery tests/process tests/tidy tests/tiny
TIMELESS := tests/simulation tests/unit
ALONE := tests/benchmarks tests/contract tests/on_ray
WORKERS := --numprocesses 2 --dist worksteal

test: check  ## the checks, then every test
	@failed=0; said=$$(mktemp); \
	$(BIN)/python -m pytest $(WORKERS) $(BEFORE) || failed=1; \
	nice -n 19 $(BIN)/python -m pytest $(WORKERS) --timeout 300 $(TIMELESS) >$$said 2>&1 & timeless=$$!; \
	$(BIN)/python -m pytest $(ALONE) || failed=1; \
	wait $$timeless || failed=1; \
	cat $$said; rm -f $$said; \
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
