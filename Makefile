# `make run` and `make test` are the two commands a newcomer needs; each builds .venv once, by itself.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
PYTHON ?= python3
BIN := .venv/bin

# One clock, no telemetry, and compiled imports: an environment that forbids .pyc files doubles every start.
export TZ := UTC
export BENTOML_DO_NOT_TRACK := true
export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := 1
export ITERATIVE_DO_NOT_TRACK := 1
export OMP_WAIT_POLICY := passive
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run demo test test-long lint docs bench bench-serving bench-cluster results chaos lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 10

run: .venv/ready ## the whole loop on a retailer's year, then a service on http://127.0.0.1:3000
	@$(BIN)/holdfast demo --serve

demo: .venv/ready ## the same, but it ends instead of serving
	@$(BIN)/holdfast demo

# A process a core: threads beside them wait for one another, and a small training takes twice as long.
test test-long: export OMP_NUM_THREADS := 1
test test-long: export OPENBLAS_NUM_THREADS := 1
PYTEST = $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder --durations 5

test: .venv/ready .venv/objects .venv/client/ready ## every test but the long ones
	$(PYTEST) -m "not long"

test-long: .venv/ready .venv/spark ## the long ones: the demonstration, notebooks, worlds lived through, load, Spark
	$(PYTEST) -m long

lint: .venv/ready ## ruff, the type checker, the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: .venv/ready ## the guides and the reference, written from the code, as pages in docs/_build
	@$(BIN)/sphinx-build -W --keep-going -q docs docs/_build
	@echo "open docs/_build/index.html"

bench: demo .oracles/ready ## benchmarks, each against its rival in the same run, and their report; begins none after HOLDFAST_BENCH_MINUTES (60)
	@$(BIN)/pytest tests/bench --ignore tests/bench/bench_cluster.py -o python_files='bench_*.py' -o python_functions='bench_*' -p no:randomly -s -q

results: .venv/ready ## the newest report of `make bench` as docs/results.md, and the README's lines from it
	@$(BIN)/python -m tests.bench.table $${HOLDFAST_HOME:-.holdfast}/reports/bench-*.md

chaos: .venv/ready ## kills, failing disks, backends away, hostile inputs: what is tried, and what broke (15 minutes)
	@CHAOS=long HOLDFAST_CORRUPTED=10000 $(BIN)/pytest tests/chaos tests/serving/test_corrupted_releases.py -n 2 --dist worksteal --durations 12

bench-serving: .venv/ready ## decisions a second, latencies and overload beside rivals, over real sockets (needs `make demo` before, and wrk)
	@$(BIN)/pytest tests/bench/serving -o python_files='bench_*.py' -o python_functions='bench_*' -p no:randomly -s -q

bench-cluster: .venv/ready .venv/spark ## features, the join and decisions by members, here and on Spark (needs `make demo` before; HOLDFAST_CLUSTER_MEMBERS)
	@$(BIN)/pytest tests/bench/bench_cluster.py -o python_files='bench_*.py' -o python_functions='bench_*' -p no:randomly -s -q

lock: ## compile requirements.lock anew (needs uv)
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --extra train --extra monitor --group dev pyproject.toml --output-file requirements.lock
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  tests/bench/oracles.in --output-file tests/bench/oracles.lock
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  tests/spark.in --output-file tests/spark.lock
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  tests/client.in --output-file tests/client.lock
	uv pip compile --quiet --universal --upgrade --python-version 3.11 --no-header --no-annotate --no-emit-index-url \
	  --constraint requirements.lock tests/objects.in --output-file tests/objects.lock

clean: ## remove the environment and everything the program wrote
	rm -rf .venv .oracles .holdfast

.venv/ready: requirements.lock pyproject.toml
	@echo "Building .venv from requirements.lock, once: 2 GB, half a minute with uv, about two minutes with pip"
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v < (3, 14) else \
	  f"Python 3.11 to 3.13 is needed, {v[0]}.{v[1]} came; try: make PYTHON=python3.12")'
	@rm -rf .venv
	@if command -v uv >/dev/null; then \
	  uv venv --quiet --python $(PYTHON) .venv; \
	  UV_COMPILE_BYTECODE=1 uv pip install --quiet --python $(BIN)/python --requirements requirements.lock; \
	  uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .; \
	else \
	  $(PYTHON) -m venv .venv; \
	  $(BIN)/python -m pip install --disable-pip-version-check --requirement requirements.lock 2>&1 | awk $(PROGRESS); \
	  $(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable . 2>/dev/null; \
	fi
	@touch $@

# Spark is half a gigabyte that only its own tests need: who runs the demonstration does without.
.venv/spark: tests/spark.lock .venv/ready
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements tests/spark.lock
	@touch $@

# A server that speaks S3 and its clients are 80 MB that only their own tests need.
.venv/objects: tests/objects.lock .venv/ready
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --requirements tests/objects.lock
	@touch $@

# What writes a client from the service's document asks for an older typer: a place of its own.
.venv/client/ready: tests/client.lock .venv/ready
	@rm -rf .venv/client
	@$(BIN)/uv venv --quiet --python $(PYTHON) .venv/client
	@$(BIN)/uv pip install --quiet --python .venv/client/bin/python --requirements tests/client.lock
	@touch $@

# Rivals' libraries (causalml, lifetimes) bring what the product must not have, dill among it: a place of their own.
.oracles/ready: tests/bench/oracles.lock .venv/ready
	@rm -rf .oracles
	@$(BIN)/uv venv --quiet --python $(PYTHON) .oracles
	@$(BIN)/uv pip install --quiet --python .oracles/bin/python --requirements tests/bench/oracles.lock
	@touch $@

# pip's hundreds of lines as one that moves, and its errors as they come
PROGRESS = '/^Collecting/ {printf "\r\033[K  %d of '$$(grep -c == requirements.lock)' packages: %s", ++n, $$2; fflush()} \
	/^Installing/ {printf "\r\033[K  unpacking and compiling them ...\n"; fflush()} /^ERROR/ {print "\n" $$0}'
