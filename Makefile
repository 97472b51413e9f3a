# One environment for everything: `make install` builds .venv from requirements.lock, and every other target needs it.
# OpenMP's spinning threads make two threads slower than one beside any other load, so every target runs with one.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
# glibc gives freed memory back and has it zeroed again at every step; see erasediff/environment.py.
export MALLOC_TRIM_THRESHOLD_ := 2147483647
export MALLOC_MMAP_THRESHOLD_ := 33554432
export DVC_NO_ANALYTICS := 1

PYTHON ?= python3.11
BIN := .venv/bin
STAMP := .venv/.installed
WORKDIR ?= erasediff-work
LABEL ?= 0
SEED ?= 0

.PHONY: install demo test lint compile docs bench-base bench-erase bench-labels bench-rates bench-gate lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check hatchling -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

demo: install
	$(BIN)/erasediff demo --workdir $(WORKDIR) --forget-label $(LABEL) --seed $(SEED)

test: install
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder tests/e2e tests

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check erasediff components pipelines tests benchmarks
	$(BIN)/mypy

compile: install
	$(BIN)/python -m pipelines.compile

docs: install
	$(BIN)/python -m components.catalogue
	$(BIN)/python -m benchmarks.tables
	$(BIN)/erasediff policy-schema > policies/schema.json

# Fashion-MNIST comes from Debian's package; it is unpacked here and not installed, so no root is needed.
FASHION := build/fashion-mnist
$(FASHION)/.unpacked:
	mkdir -p $(FASHION)
	cd $(FASHION) && apt-get download dataset-fashion-mnist && dpkg -x dataset-fashion-mnist_*.deb . && rm dataset-fashion-mnist_*.deb
	touch $@

bench-base: install $(FASHION)/.unpacked
	$(BIN)/python -m benchmarks.base

# Long: hours. Finished runs are kept in benchmarks/results/runs.jsonl, so it can be stopped and started again.
bench-erase: bench-base
	$(BIN)/python -m benchmarks.erase
	$(BIN)/python -m benchmarks.plots

# EraseDiff on all ten labels of Fashion-MNIST.
bench-labels: bench-base
	$(BIN)/python -m benchmarks.erase --subjects fashion-mnist --methods erasediff --labels 0 1 2 3 4 5 6 7 8 9 --seeds 0 --name labels

# The learning rates that bench-erase gives the rivals.
bench-rates: bench-base
	$(BIN)/python -m benchmarks.rates

# The gate before models that must never pass and models that must: hours, kept in benchmarks/results/gate.jsonl.
bench-gate: bench-base
	$(BIN)/python -m benchmarks.gate

lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet 'torch==2.13.0' --editable '.[cpu,s3,dev]'
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv erasediff-work .mypy_cache .pytest_cache .ruff_cache
