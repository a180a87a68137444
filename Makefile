# Every target sets up .venv first if need be; `make` alone lists the targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

# Nothing that runs here may ask the network for models, updates or telemetry.
export HF_HUB_OFFLINE := 1
export FLWR_TELEMETRY_ENABLED := 0
export FLWR_DISABLE_UPDATE_CHECK := 1

PYTEST := $(BIN)/python -m pytest
# A test runs in one thread. Tests of one file stay together, since they share what its
# fixtures train.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile
RUFF := $(BIN)/ruff
# Files without an ending have to be named.
SOURCES := . .ci/typecheck .ci/portability

.PHONY: help setup demo bench-demo bench-scenarios bench-search bench-scale bench-prior bench-certificates bench-methods bench-launched bench-structure bench-deployment bench-sweeps bench-sampling bench-living bench-tables bench-named bench-warm-start bench-domains bench-privacy bench-promises bench-points bench-all test test-slow test-gpu test-deploy test-all test-portability test-flower-newest lint format docs wheel clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo "With another Python, 3.11 or newer: make setup PYTHON=/path/to/python3"

setup: $(INSTALLED) ## make .venv and install fedcert in it, with pinned versions

demo: $(INSTALLED) ## simulate a small federation end to end into runs/demo
	$(BIN)/fedcert simulate digits --set certificate.recipe=planned --output runs/demo

bench-demo: $(INSTALLED) ## measure the demo and render docs/demo.md from it
	$(BIN)/python -m fedcert.simulations.benchmarks.demo

bench-scenarios: $(INSTALLED) ## run every scenario and render docs/scenarios.md
	$(BIN)/python -m fedcert.simulations.benchmarks.scenarios

bench-search: $(INSTALLED) ## measure the search and render docs/searching.md from it
	$(BIN)/python -m fedcert.simulations.benchmarks.search

bench-scale: $(INSTALLED) ## measure larger base models and render docs/scale.md
	$(BIN)/python -m fedcert.simulations.benchmarks.scale

bench-prior: $(INSTALLED) ## measure every prior on unseen tasks and render docs/prior.md
	$(BIN)/python -m fedcert.simulations.benchmarks.prior

bench-certificates: $(INSTALLED) ## measure every recipe and render docs/certificates.md
	$(BIN)/python -m fedcert.simulations.benchmarks.certificates

bench-sampling: $(INSTALLED) ## play out what dropping or copying rows does to certificates, and render docs/theory.md
	$(BIN)/python -m fedcert.simulations.benchmarks.sampling_page

bench-living: $(INSTALLED) ## compare living bounds with fresh certificates, and render docs/theory.md
	$(BIN)/python -m fedcert.simulations.benchmarks.promises_living

bench-methods: $(INSTALLED) ## compare with every baseline and render docs/benchmarks.md
	$(BIN)/python -m fedcert.simulations.benchmarks.methods

bench-launched: $(INSTALLED) ## launch every method as a run would and render docs/launched.md
	$(BIN)/python -m fedcert.simulations.benchmarks.launched

bench-structure: $(INSTALLED) ## measure which directions new clients train, and render docs/structure.md
	$(BIN)/python -m fedcert.simulations.benchmarks.structure

bench-named: $(INSTALLED) ## measure clients' own labels, with names, and render docs/named.md
	$(BIN)/python -m fedcert.simulations.benchmarks.named

bench-promises: $(INSTALLED) ## measure what certificates promise beside the bound, and render docs/promises.md
	$(BIN)/python -m fedcert.simulations.benchmarks.promises

bench-points: $(INSTALLED) ## measure what each depth and precision costs and promises, and render docs/points.md
	$(BIN)/python -m fedcert.simulations.benchmarks.points

bench-domains: $(INSTALLED) ## measure from which pool on each prior pays and render docs/domains.md
	$(BIN)/python -m fedcert.simulations.benchmarks.domains

bench-privacy: $(INSTALLED) ## measure a private default adapter and base model, and render docs/private-default.md
	$(BIN)/python -m fedcert.simulations.benchmarks.privacy

bench-warm-start: $(INSTALLED) ## measure what federated rounds on the base model are worth and render docs/warm-start.md
	$(BIN)/python -m fedcert.simulations.benchmarks.warm_start

bench-sweeps: $(INSTALLED) ## vary M, d, pool and shift one at a time and render docs/sweeps.md
	$(BIN)/python -m fedcert.simulations.benchmarks.sweeps

bench-tables: $(INSTALLED) ## run tables of tickets as a newcomer would and render docs/tables.md
	$(BIN)/python -m fedcert.simulations.benchmarks.tables

bench-all: $(INSTALLED) ## run every benchmark (many hours); RESUME=--resume skips what is up to date
	$(BIN)/python -m fedcert.simulations.benchmarks.everything $(RESUME)

bench-deployment: $(INSTALLED) ## bring every fault about, measure scale, and render docs/reliability.md
	$(BIN)/python -m fedcert.simulations.benchmarks.deployment

test: $(INSTALLED) ## run the tests that do not take minutes
	$(PYTEST) $(PARALLEL) -m "not slow and not deploy and not gpu"

test-slow: $(INSTALLED) ## run the tests that take minutes
	$(PYTEST) -m "slow and not deploy and not gpu"

test-gpu: $(INSTALLED) ## run every hot path on a GPU; without one they are skipped
	$(PYTEST) -m gpu

test-deploy: $(INSTALLED) ## run the tests with a real SuperLink and SuperNodes, TLS on
	$(PYTEST) -m deploy

test-flower-newest: $(INSTALLED) ## test strategies and clients with the newest Flower, apart from .venv
	.ci/test-flower-newest

test-all: $(INSTALLED) ## run all tests
	$(PYTEST)

test-portability: $(INSTALLED) ## run the tests as other machines would, one setting after the other
	$(BIN)/python .ci/portability

lint: $(INSTALLED) ## check style, format and types
	$(RUFF) check $(SOURCES)
	$(RUFF) format --check $(SOURCES)
	$(BIN)/python .ci/typecheck

format: $(INSTALLED) ## format the code and mend what can be mended
	$(RUFF) check --fix $(SOURCES)
	$(RUFF) format $(SOURCES)

docs: $(INSTALLED) ## build the documentation into build/docs, to read in a browser
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs
	@echo "build/docs/index.html"

# setuptools would pack what an earlier build left in build/lib.
wheel: $(INSTALLED) ## build a wheel into dist/
	rm -rf build/lib build/bdist.*
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

clean: ## remove builds and caches; .venv and runs/ stay
	rm -rf build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis .coverage
	find .ci clients fedcert simulations strategies tests -name __pycache__ -prune -exec rm -rf {} +

# An editable install picks up every change of the code: only these two files call for
# another one. The constraints pin torch, of which some versions bring gigabytes for GPUs.
$(INSTALLED): pyproject.toml .ci/constraints.txt | $(BIN)/pip
	$(BIN)/pip install --disable-pip-version-check -c .ci/constraints.txt -e '.[simulation,dev]'
	@touch $@

# pip is the last thing that venv puts there: without it an interrupted run starts over.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "fedcert needs Python 3.11 or newer, and '$(PYTHON)' is not; name one: make setup PYTHON=python3.11" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "'$(PYTHON)' has no venv module; install it (Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
