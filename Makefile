# `make demo` and `make test` do all the set-up on a machine that has python3 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-full check bench docs clean

# The constraints pin what was tested. On Linux without an NVIDIA card the CPU build of torch is
# enough; where the index offers only the CUDA build, that one is taken and works as well.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python scripts/demo.py

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/pytest -m "not slow" -n 2

test-full: check
	$(BIN)/pytest -n 2

bench: $(READY)
	bash -o pipefail -c '$(BIN)/python -m benchmarks | tee benchmarks.log'
	LOG=benchmarks.log OUT=benchmarks.png $(BIN)/python -m benchmarks chart

docs: $(READY)
	$(BIN)/python scripts/methods.py
	$(BIN)/python scripts/figures.py

clean:
	rm -rf $(VENV) dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
