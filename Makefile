# Everything sets itself up: a virtual environment in .venv, the package, the extras it needs.

PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test check twins twins-grow twins-joint twins-smoke storm controls bench clean

demo: .venv/demo  ## the main job on real images, from enqueue to summary
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/demo.sh

test: .venv/dev  ## all tests
	$(BIN)/python -m pytest -n auto

check: .venv/dev  ## style, types, directions between the rooms
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

twins: .venv/demo  ## the papers' claims on two CPU cores: hours; stopped, it goes on where it was
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/papers/twins.sh

twins-grow: .venv/demo  ## those about networks that grow, in a home of their own: hours
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/papers/twins.sh grow

twins-joint: .venv/demo  ## those about borrowed images, likewise
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/papers/twins.sh joint

twins-smoke: .venv/demo  ## the same designs in minutes
	@PATH="$(CURDIR)/$(BIN):$$PATH" sh examples/papers/twins.sh smoke

SEED ?= 1
KILLS ?= 200
storm: .venv/dev  ## random kills by the hundred; the last line is the verdict
	$(BIN)/python -m tests.storm --seed $(SEED) --kills $(KILLS)

controls: .venv/dev  ## takes every mechanism out once; its test has to fail
	$(BIN)/python -m tests.controls

bench: .venv/dev  ## the figures of docs/benchmarks.md
	$(BIN)/python -m benchmarks

clean:
	rm -rf .venv .demo build dist *.egg-info

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "ftd needs Python 3.11 or newer; say which: make PYTHON=python3.11"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/demo: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[demo]'
	@touch $@

.venv/dev: .venv/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@ .venv/demo
