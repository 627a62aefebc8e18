# What a newcomer types. Every target creates what it needs; a virtual environment comes first.

SHELL := /bin/bash
.DEFAULT_GOAL := help

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SECONDS ?= 60
# Many tests wait for real calls and timers: more workers than cores make a run shorter.
WORKERS ?= $(shell echo $$((2 * $$(nproc))))

.PHONY: help venv demo serve test check docs bench sim lock clean

help: ## show this help
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' $(MAKEFILE_LIST)

# The interpreter alone. Debian splits the venv module off into a package of its own.
$(VENV)/bin/python:
	@requirements/make-venv "$(PYTHON)" $(VENV)

# What the program needs at run time, exactly as locked.
$(VENV)/.base: requirements/base.lock pyproject.toml | $(VENV)/bin/python
	@echo "installing the locked dependencies into $(VENV)"
	@$(PIP) --require-hashes -r requirements/base.lock
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

# The tools and test libraries on top of it.
$(VENV)/.dev: requirements/dev.lock $(VENV)/.base
	@echo "installing the locked development tools into $(VENV)"
	@$(PIP) --require-hashes -r requirements/dev.lock
	@touch $@

venv: $(VENV)/.dev ## create the virtual environment with everything in it

demo: $(VENV)/.base ## simulated traffic against prepaid wallets, then the proof of the books
	@$(BIN)/tollkeeper demo

serve: $(VENV)/.base ## run the server on http://127.0.0.1:8080
	@$(BIN)/tollkeeper serve

test: $(VENV)/.dev ## run the test suite (ARGS='-k name' for some of it)
	@$(BIN)/python -m pytest --numprocesses $(WORKERS) $(ARGS)

check: $(VENV)/.dev ## lint, format, types, direction of imports
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy --strict src
	@$(BIN)/lint-imports

docs: $(VENV)/.dev ## write the generated pages of docs/reference anew
	@$(BIN)/python tools/docs.py

bench: $(VENV)/.base ## measure, and write bench.json
	@$(BIN)/tollkeeper bench

sim: $(VENV)/.dev ## run the seeded simulator for SECONDS=60
	@$(BIN)/python -m tests.sim --seconds $(SECONDS)

UV_COMPILE := $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'

lock: $(VENV)/bin/python ## resolve the dependencies anew (UPGRADE=1 takes newer versions)
	@test -x $(BIN)/uv || $(PIP) uv
	@$(UV_COMPILE) $(if $(UPGRADE),--upgrade) pyproject.toml requirements/build.in -o requirements/base.lock
	@$(UV_COMPILE) $(if $(UPGRADE),--upgrade) --extra dev -c requirements/base.lock \
		pyproject.toml requirements/build.in -o requirements/dev.lock
	@$(UV_COMPILE) $(if $(UPGRADE),--upgrade) --extra ray -c requirements/dev.lock \
		pyproject.toml -o requirements/ray.lock

clean: ## remove everything that can be made again (never the data folder)
	@rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	@find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
