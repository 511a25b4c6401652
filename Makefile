# Everything a developer does. `make demo` and `make test` set up what they need in .venv by themselves.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEV    := $(VENV)/.ready-dev
# Processes that share the tests; 0: all in one, as a debugger wants it.
WORKERS ?= 2

.PHONY: help demo test test-real check lint types contracts docs bench-lstm bench-langchain bench-analyse bench-import changelog dist clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       the claims-support agent end to end: trace tree, cohort table, verdict, report.html"
	@echo "make test       the test suite"
	@echo "make test-real  the tests that start a real collector, browser or server"
	@echo "make check      lint, types, import contracts"
	@echo "make bench-*    lstm, langchain, analyse, import: ratios measured in one run"

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip -c constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo]'
	@touch $@

$(DEV): $(READY)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[all]' --group dev
	@touch $@

demo: $(READY)
	$(BIN)/lstm-trace demo $(ARGS)

test: $(DEV)
	$(BIN)/python -m pytest -m "not real" -n $(WORKERS) --dist worksteal $(ARGS)

test-real: $(DEV)
	$(BIN)/python -m pytest -m real $(ARGS)

check: lint types contracts

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python docs/attributes.py --check

types: $(DEV)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

contracts: $(DEV)
	$(BIN)/lint-imports

docs: $(DEV)
	$(BIN)/python docs/attributes.py

bench-%: $(DEV)
	$(BIN)/python benchmarks/bench_$*.py $(ARGS)

changelog: $(DEV)
	$(BIN)/towncrier build --draft

dist: $(DEV)
	$(BIN)/python -m build

clean:
	rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis lstm-traces lstm-trace-demo
