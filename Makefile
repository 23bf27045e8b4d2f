# Set-up, tests and tools of Quartet. `make` alone lists what there is.
# Each target first sets up what is missing in .venv, and is quick when nothing is.

PYTHON ?= python3
PORT ?= 8888
SETUP = "$(PYTHON)" tools/setup_env.py $(if $(filter file,$(origin PYTHON)),,--exact)

.PHONY: help lab deploy test test-fast test-changed build bench pins clean python

help: ## Show this list
	@echo "Quartet: one lesson, four frameworks, the same numbers."
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile

lab: python ## Open JupyterLab on START.ipynb (another port: make lab PORT=8889)
	@$(SETUP)
	@.venv/bin/quartet lab --port $(PORT)

deploy: python ## Add what the lessons on deployment need to .venv
	@$(SETUP) deploy

test: python ## Prove it all: built files, ruff, every notebook, every test
	@$(SETUP) dev
	@.venv/bin/python -m quartet.proof

test-fast: python ## What a small edit needs: the same without what is slow
	@$(SETUP) dev
	@.venv/bin/python -m quartet.proof fast

test-changed: python ## What a change can have broken since it last passed: a quick look
	@$(SETUP) dev
	@.venv/bin/python -m quartet.proof changed

build: python ## Build notebooks/, exercises/ and solutions/ from lessons/
	@$(SETUP) teach
	@.venv/bin/quartet build

bench: python ## Measure kernels, training steps, checks and grading, into docs/bench/
	@$(SETUP)
	@.venv/bin/quartet bench

pins: ## Write constraints.txt anew (needs uv)
	@tools/pins.sh

clean: ## Remove .venv and caches; nothing that you wrote
	rm -rf .venv .quartet .pytest_cache .ruff_cache build quartet.egg-info
	find quartet utils tests tools lessons data -name __pycache__ -prune -exec rm -rf {} +

python:
	@command -v "$(PYTHON)" >/dev/null || { echo "There is no $(PYTHON). Install Python 3.11, \
	or say which to take, as in: make lab PYTHON=/usr/bin/python3.12" >&2; exit 1; }
