# `make` lists what there is. Everything runs in .venv, which is made when it is first needed.
PYTHON ?= python3
BIN := .venv/bin
SHELL := bash
.SHELLFLAGS := -o pipefail -c
.DEFAULT_GOAL := help
.PHONY: help demo ui stop deploy worker check test lint format constraints clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer; name one with PYTHON=")'
	$(PYTHON) -m venv .venv
	@echo "installing into .venv: a few minutes, most of it torch (5 GB)"
	@$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]' -c constraints.txt \
		| grep --line-buffered -E '^(Collecting|Installing|Successfully|ERROR)' | cut -c1-110
	@touch $@

demo: .venv/.installed  ## the whole pipeline on this machine, without a key or a network
	$(BIN)/python -m flows.demo $(if $(KEEP),--keep)

ui: .venv/.installed  ## a Prefect server with its UI, and the reports, until Ctrl-C
	$(BIN)/python -m flows.services serve

stop: .venv/.installed  ## end what `KEEP=1 make demo` left running
	$(BIN)/python -m flows.services stop

deploy: .venv/.installed  ## register every deployment of prefect.yaml
	@$(BIN)/python -m flows.services check
	$(BIN)/prefect --no-prompt deploy --all

worker: .venv/.installed  ## run what the deployments start, until Ctrl-C
	@$(BIN)/python -m flows.services check
	$(BIN)/prefect worker start --pool darkroom --type process

check: lint  ## format, lint, types, import contracts, fast tests
	$(BIN)/pytest tests/unit tests/property

test: lint  ## everything that CI runs
	$(BIN)/pytest

lint: .venv/.installed  ## format, lint, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.installed  ## rewrite the code in the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

constraints: .venv/.installed  ## write the versions of .venv down as constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | grep -E '^[A-Za-z0-9._-]+==' > constraints.txt

clean:  ## remove .venv and caches; the data root stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info
