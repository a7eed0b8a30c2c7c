# The commands of the project. Each sets up .venv first when it is missing or out of date.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

ARGS ?=
SEEDS ?= 20
# Three at a time, whole files each (those with real brokers mostly wait); with ARGS in one process, where a debugger can be.
TEST_ARGS := $(or $(ARGS),--numprocesses=3 --dist=loadfile --quiet)

BIN := .venv/bin
BUILT_FROM := pyproject.toml setup.py $(wildcard native/*.py native/src/*.c native/src/*.h)
INSTALLED_RUN := .venv/.installed-run
INSTALLED_DEV := .venv/.installed-dev
# Once the tools of the tests are there, they are kept: running never takes them away.
INSTALLED := $(if $(wildcard $(INSTALLED_DEV)),$(INSTALLED_DEV),$(INSTALLED_RUN))

.PHONY: help start test check fix simulate mutants interop bench bench-micro clean

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1\t\2/p' Makefile | expand -t 16

start: $(INSTALLED) ## run the broker; options pass through: make start ARGS="--port 9092"
	@exec $(BIN)/corelane start $(ARGS)

test: $(INSTALLED_DEV) ## run the tests; make test ARGS="tests/unit -k wal"
	@$(BIN)/python -m pytest $(TEST_ARGS)

check: $(INSTALLED_DEV) ## verify style, types, layers and the C core; changes nothing
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if [[ -f native/sanitize.py ]]; then set -x; $(BIN)/python native/sanitize.py; fi

fix: $(INSTALLED_DEV) ## format, and mend what a program can mend
	$(BIN)/ruff check --fix --exit-zero --quiet
	$(BIN)/ruff format

simulate: $(INSTALLED_DEV) ## run the simulations over many seeds; make simulate SEEDS=200
	@$(BIN)/python -m tests.simulation.simulate --seeds $(SEEDS) $(ARGS)

mutants: $(INSTALLED_DEV) ## plant known bugs one by one, and see that each is found
	@$(BIN)/python -m tests.simulation.mutants $(ARGS)

interop: $(INSTALLED_DEV) ## run kcat, Kafka's own tools and franz-go against a broker
	@$(BIN)/python -m tests.conformance.interop $(ARGS)

bench: $(INSTALLED_DEV) ## measure beside real Kafka; results in bench/results
	@$(BIN)/python -m bench.macro.run $(ARGS)

bench-micro: $(INSTALLED_DEV) ## count instructions of the hot path, compare with the committed figures
	@$(BIN)/python -m bench.micro.instructions $(ARGS)

clean: ## remove what was built and installed; data directories stay
	rm -rf .venv .tools build dist *.egg-info broker/*.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	rm -f native/corelane_native/*.so
	find broker clients native tests bench -name __pycache__ -prune -exec rm -rf {} +

$(INSTALLED_RUN): $(BUILT_FROM) .ci/setup
	@.ci/setup run

$(INSTALLED_DEV): $(BUILT_FROM) .ci/setup
	@.ci/setup dev
