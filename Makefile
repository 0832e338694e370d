# make setup | demo | test | test-all | lint | clean
PYTHON ?= python3
BIN := .venv/bin
DEMO := runs/demo

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format wheel-check clean

help:
	@echo "make setup      .venv with everything a user and a developer needs"
	@echo "make demo       train, evaluate and report on MiniHack-KeyRoom-S5 (a few minutes, no LLM, no GPU)"
	@echo "make test       the fast tests"
	@echo "make test-all   every test, the slow ones too"
	@echo "make lint       ruff, pyright, import-linter"

setup: .venv/ready

# torch first and alone: where the index holds a CPU build, the range finds it, and nothing later replaces it.
.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "Yendor needs Python 3.11 or later; set PYTHON=/path/to/it"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet "torch>=2.11,<2.14"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	@touch $@

# A demo that was cut goes on where it stopped; one that ended is made anew.
demo: setup
	@if [ -f $(DEMO)/report.html ] || [ ! -e $(DEMO)/latest ]; then \
	  rm -rf $(DEMO); $(BIN)/yendor train keyroom_oni --name demo; \
	else $(BIN)/yendor train --resume $(DEMO); fi
	$(BIN)/yendor eval $(DEMO) --episodes 200
	$(BIN)/yendor report $(DEMO)

test: setup
	$(BIN)/python -m pytest -m "not slow and not vllm and not gpu" --durations=10 $(ARGS)

# A skip that is not named here fails the run.
ALLOW_SKIP ?= gpu
test-all: setup
	$(BIN)/python -m pytest -m "not vllm" --timeout=3600 --durations=20 --allow-skip=$(ALLOW_SKIP) $(ARGS)

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
