# What there is to do with a checkout of hal0; `make help` lists it.

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=
SEED ?= 1
MINUTES ?= 5
BIN := .venv/bin

export PYTHON
unexport PYTHONDONTWRITEBYTECODE # tests start some hundred processes of hal0

.DEFAULT_GOAL := help
.PHONY: help setup demo nuclear test chaos soak bench check check-format check-lint check-types check-imports check-schema clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## make .venv, with the Debian packages that it needs; fetches nothing when it is whole
	@bash .ci/set-up

demo: setup  ## the whole of hal0 in one go, on this machine, with a real model
	@$(BIN)/hal0 demo

nuclear: setup  ## what a bad file does to every model of Lemonade, with hal0 before it and without
	@$(BIN)/python -m tests.nuclear

test: setup  ## all tests; PYTEST_ARGS goes to pytest
	@bash .ci/set-up-browser
	@$(BIN)/pytest -n 3 --dist loadgroup $(PYTEST_ARGS)

chaos: setup  ## campaigns of kill -9 under traffic, one table; SEED=7 MINUTES=30
	@$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES)

soak: setup  ## clients that come and go while slots are loaded and unloaded, one table; SEED=7 MINUTES=30
	@$(BIN)/python -m tests.soak --seed $(SEED) --minutes $(MINUTES)

bench: setup  ## one table of speed and memory, beside rivals that it brings; BENCH_ROUNDS=5 for a look
	@bash .ci/set-up-bench
	@$(BIN)/python -m tests.bench $(BENCH_ARGS)

check: check-format check-lint check-types check-imports check-schema  ## all that is checked without running hal0

check-format: setup  ## layout of the code
	$(BIN)/ruff format --check .

check-lint: setup  ## ruff's rules
	$(BIN)/ruff check .

check-types: setup  ## mypy --strict
	$(BIN)/mypy

check-imports: setup  ## which room may import which
	$(BIN)/lint-imports

check-schema: setup  ## the migrations build what tables.py says
	@home=$$(mktemp -d) && trap 'rm -rf "$$home"' EXIT && export HAL0_HOME="$$home" \
		&& $(BIN)/alembic upgrade head && $(BIN)/alembic check

clean:  ## take away .venv and all caches
	rm -rf .venv .cache .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache build dist demo-home
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
