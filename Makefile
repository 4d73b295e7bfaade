# Everything here starts from a fresh clone: the first target that needs the environment builds it in .venv.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# The interpreter that .venv is made from, and more words for pytest: make test PYTEST_ARGS="-k merge -x"
PYTHON ?= $(shell python3.11 -c '' 2>/dev/null && echo python3.11 || echo python3)
PYTEST_ARGS ?=
# Words for a benchmark: make bench-pairs BENCH_ARGS="--millions 5 --rounds 1"
BENCH_ARGS ?=

BIN := .venv/bin
STAMP := .venv/.stamp

.PHONY: help venv demo test test-cluster bench-pairs bench-train bench-evaluate bench-index bench-serve bench-quality bench-recipes lint types format check clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

venv: $(STAMP) ## Build .venv from requirements.lock; again only when the lock or pyproject.toml changes

# `compat` puts the checkout on the path itself; the other kind of editable install gives way to any folder that is
# called raycl, such as the checkout seen from its parent. A .venv without a stamp is one that was interrupted, so it is made anew; a stale one is brought up to the lock.
$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null || { \
	  echo "PYTHON=$(PYTHON) is '$$($(PYTHON) --version 2>&1)', and raycl needs Python 3.11, 3.12 or 3.13:" \
	    "run 'make venv PYTHON=python3.11'" >&2; exit 1; }
	test -e $@ || $(PYTHON) -m venv --clear .venv
	$(BIN)/pip install --quiet -r requirements.lock
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

demo: $(STAMP) ## Run the whole journey on this machine, from logs to an answer
	$(BIN)/raycl demo

test: $(STAMP) ## Run the tests, all but the long ones
	$(BIN)/pytest -m "not long" $(PYTEST_ARGS)

test-cluster: $(STAMP) ## Run the long tests: real Ray clusters, kills, faults, signals; three quarters of an hour
	$(BIN)/pytest -m long $(PYTEST_ARGS)

bench-pairs: $(STAMP) ## Measure logs to pairs beside Polars, DuckDB and PySpark; needs Java, 24 GiB, half an hour
	$(BIN)/pip install --quiet -r benchmarks/requirements.lock
	$(BIN)/python -m benchmarks.pairs $(BENCH_ARGS)

bench-train: $(STAMP) ## Measure training beside a bare PyTorch loop; 12 GiB, half an hour
	$(BIN)/python -m benchmarks.train $(BENCH_ARGS)

bench-evaluate: $(STAMP) ## Measure exact top-k beside torch.topk; 8 GiB, an hour
	$(BIN)/python -m benchmarks.evaluate $(BENCH_ARGS)

# autofaiss needs an older NumPy than raycl, and so an environment of its own.
AUTOFAISS := benchmarks/scratch/autofaiss
$(AUTOFAISS)/.stamp: benchmarks/index/requirements-autofaiss.lock
	$(PYTHON) -m venv --clear $(AUTOFAISS)
	$(AUTOFAISS)/bin/pip install --quiet -r $<
	@touch $@

bench-index: $(STAMP) $(AUTOFAISS)/.stamp ## Measure the sharded build beside FAISS and autofaiss; 12 GiB, an hour
	$(BIN)/python -m benchmarks.index --autofaiss $(AUTOFAISS)/bin/python $(BENCH_ARGS)

bench-serve: $(STAMP) ## Measure answers over HTTP beside FastAPI + FAISS by hand and Qdrant; 8 GiB, half an hour
	$(BIN)/pip install --quiet -r benchmarks/serve/requirements.lock
	$(BIN)/python -m benchmarks.serve $(BENCH_ARGS)

bench-quality: $(STAMP) ## Train and measure the recipes on public data (in RAYCL_DATA); 8 GiB, an hour
	$(BIN)/python -m benchmarks.quality $(BENCH_ARGS)

bench-recipes: $(STAMP) ## Run every recipe on real data (in RAYCL_DATA), and write the README's table; 8 GiB, hours
	$(BIN)/python -m benchmarks.recipes --ablations $(BENCH_ARGS)

lint: $(STAMP) ## Check style and format
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(STAMP) ## Check types
	$(BIN)/mypy

format: $(STAMP) ## Rewrite the code in the house format
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

check: lint types test ## Run lint, types and test

clean: ## Remove .venv, caches and build leftovers; data in workspace/ stays
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name .git -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
