# Everything goes into the virtual environment .venv; the Python that makes it stays as it is.
# Variables: PYTHON=path names the Python to make it from, VENV=folder puts it elsewhere,
# WORKERS=n is the number of processes that run the tests.

VENV ?= .venv
BIN := $(VENV)/bin
WORKERS ?= 2
RECIPE := recipes/ljspeech
CANDIDATES := $(if $(PYTHON),$(PYTHON),python3.11 python3.12 python3.13 python3)

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help sound demo test lint clean

help: ## list the commands
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

sound: $(VENV)/.installed-package ## install, train for about two minutes on the CPU, make first-sound.wav
	$(BIN)/python $(RECIPE)/train.py --data sample --config sound
	$(BIN)/vocoder resynthesize $(RECIPE)/sample/wavs/ru_0813.flac \
	    --checkpoint runs/sound/model -o first-sound.wav --force

demo: $(VENV)/.installed-demo ## install and start the demo page; ARGS="--checkpoint runs/sound/model" for a model of yours
	$(BIN)/vocoder demo $(ARGS)

test: $(VENV)/.installed-dev ## install and run the tests
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile

lint: $(VENV)/.installed-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv, builds and caches; runs/ and data/ stay
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A candidate counts only if it runs: a name on PATH may be a shim for a Python that is not there.
# The stamp is written last, so that an interrupted step is done again.
$(VENV)/.created:
	@reasons=; \
	for python in $(CANDIDATES); do \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || { \
	        reasons="$$reasons; $$python does not run"; \
	        continue; \
	    }; \
	    case $$version in \
	        3.11|3.12|3.13|3.14) ;; \
	        *) reasons="$$reasons; $$python is Python $$version"; continue ;; \
	    esac; \
	    "$$python" -c 'import ensurepip, venv' 2>/dev/null || { \
	        reasons="$$reasons; $$python cannot make virtual environments (Debian: apt install python$$version-venv)"; \
	        continue; \
	    }; \
	    echo "Making $(VENV) from $$python (Python $$version)"; \
	    "$$python" -m venv "$(VENV)" && touch "$@"; \
	    exit; \
	done; \
	echo "No usable Python 3.11 to 3.14 found$$reasons." >&2; \
	echo "If there is one elsewhere: make PYTHON=/path/to/python3.11 ..." >&2; \
	exit 1

PIP_INSTALL := $(BIN)/python -m pip install --disable-pip-version-check
NOTE := "Installing into $(VENV): PyTorch and what else pyproject.toml names, several GB, once"

$(VENV)/.installed-package: pyproject.toml | $(VENV)/.created
	@echo $(NOTE)
	$(PIP_INSTALL) -e .
	@touch $@

$(VENV)/.installed-demo: pyproject.toml | $(VENV)/.created
	@echo $(NOTE)
	$(PIP_INSTALL) -e ".[demo]"
	@touch $@

$(VENV)/.installed-dev: pyproject.toml | $(VENV)/.created
	@echo $(NOTE)
	$(PIP_INSTALL) -e ".[dev]"
	$(PIP_INSTALL) -e ".[metrics]" || \
	    echo "pesq could not be built (it needs a C compiler): the tests of PESQ are skipped"
	@touch $@
