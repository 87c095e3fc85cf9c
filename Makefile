# Two commands set everything up by themselves: `make demo` and `make test`. `make help` lists the rest.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed-dev
PYTEST_WORKERS ?= 2
DEMO := taehv_demo-$(shell date +%Y%m%d-%H%M%S)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types imports unit docs format kills faults long clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "tinyworld needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Name another one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian and Ubuntu: apt install python3-venv"; exit 2; }

$(READY): pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing into $(VENV): about 2 GB, a few minutes"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

setup: $(READY)  ## environment in .venv with everything that is needed

demo: setup  ## train an autoencoder and a small video world on the embedded rooms, measure, write reports into output/
	$(BIN)/tinyworld demo --run_name $(DEMO)
	$(BIN)/tinyworld demo fantasy --short --codec_path output/$(DEMO)/best_model

test: lint types imports unit  ## everything a change must pass

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check src tests benchmarks examples

types: setup
	$(BIN)/mypy

imports: setup
	$(BIN)/lint-imports

unit: setup
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(PYTEST_WORKERS)

docs: setup  ## the documentation as a site in site/, which works without a server and a network
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

format: setup  ## rewrite the sources in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format src tests benchmarks examples

kills: setup  ## long: 200 SIGKILLs at random moments, resumed each time, compared bit by bit
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.long.random_kills --kills 200 --jobs 2

faults: setup  ## long: the fault suite three times over
	for round in 1 2 3; do OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(PYTEST_WORKERS) tests/faults tests/engine/test_verdict.py tests/engine/test_liveness.py || exit 1; done

long: setup  ## long: the tests that `make test` leaves out for their time
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n $(PYTEST_WORKERS) -m long

clean:  ## remove what the commands made (not output/)
	rm -rf $(VENV) site .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist src/*.egg-info
