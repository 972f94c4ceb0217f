# Every target sets up what it needs; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CHECKERS ?= .venv-checkers
MEMBERS := protos chassis services/governance services/contracts services/ingest services/graph services/models gateway cli client connectors
IMAGES := governance contracts ingest graph models gateway cli demo
SOAK := tests/contracts/test_contracts_compatibility.py tests/gateway/test_gateway_openapi.py tests/system/clients \
	$(addprefix tests/system/test_,$(addsuffix .py,data_breaker event_clients kills large_imports rolling_restart))
ARGS ?=
unexport PYTHONDONTWRITEBYTECODE # each of the many processes of a run would compile the code again

.PHONY: help setup up demo test soak images sbom test-containers check format protos slo locks bench docs clean

help: ## List the targets.
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.installed: locks/uv.txt locks/all.txt $(addsuffix /pyproject.toml,$(MEMBERS))
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info[:2] < (3, 14) else f"Counterfoil needs Python 3.11, 3.12 or 3.13; $(PYTHON) is {sys.version.split()[0]}. Say make PYTHON=/path/to/python3.11")'
	@echo "Setting up $(VENV) (about a minute, once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r locks/uv.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip sync --quiet --compile-bytecode --require-hashes locks/all.txt locks/uv.txt
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --no-deps --no-build-isolation $(addprefix -e ./,$(MEMBERS))
	@touch $@

$(CHECKERS)/.installed: $(VENV)/.installed locks/checkers.txt
	@echo "Setting up $(CHECKERS) (half a minute, once) ..."
	@$(PYTHON) -m venv $(CHECKERS)
	@VIRTUAL_ENV=$(CURDIR)/$(CHECKERS) $(BIN)/uv pip sync --quiet --require-hashes locks/checkers.txt
	@touch $@

setup: $(VENV)/.installed ## Make the virtual environment from the hash-pinned locks.

up: setup ## Start every process on this machine; Ctrl-C stops them. ARGS are those of `counterfoil up`.
	@$(BIN)/counterfoil up $(ARGS)

demo: setup ## A grocer's real year and a synthetic store: forecast, attribution beside lift, consent, approvals. ARGS=--exit ends it.
	@$(BIN)/counterfoil demo $(ARGS)

test: setup ## Run the tests, in three processes, as some wait; what fails among others once more alone. ARGS are those of pytest, which runs them in one.
	@$(BIN)/python -m pytest $(or $(ARGS),-n 3) || { [ $$? = 1 ] && [ -z "$(ARGS)" ] && echo "What failed among others is run once more, alone:" && \
	  $(BIN)/python -m pytest --last-failed --last-failed-no-failures=none; }

soak: setup ## What `make test` runs in short, at length: 50 kills of every process, 20,000 pairs of schemas, every fault to every SDK, a gigabyte (half an hour). SOAK_ROUNDS=n, COMPATIBILITY_PAIRS=n for fewer.
	@SOAK_ROUNDS=$${SOAK_ROUNDS:-50} COMPATIBILITY_PAIRS=$${COMPATIBILITY_PAIRS:-20000} CLIENT_FAULTS=all IMPORT_MB=$${IMPORT_MB:-1024} $(BIN)/python -m pytest -s --soak \
	  $(SOAK) $(ARGS)

test-containers: setup ## Build the images, run docker-compose.yml and k8s/ with them in throw-away sandboxes. ARGS=--all for every test.
	@tools/containers/run-all.sh $(ARGS)

images: sbom ## Build every image: by Docker where it answers, else without a network in a sandbox (root, Debian 12).
	@tools/containers/build-images.sh $(ARGS)

sbom: $(patsubst %,build/sbom/%.cdx.json,$(IMAGES)) ## Write what each image holds to build/sbom/, CycloneDX 1.6 JSON.

build/sbom/%.cdx.json: locks/%.txt tools/sbom.py $(addsuffix /pyproject.toml,$(MEMBERS)) | setup
	@$(BIN)/python -m tools.sbom $*

check: setup $(CHECKERS)/.installed ## Format, lint, types, import directions, protos.
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/python tools/protos.py --check
	@$(BIN)/buf lint protos/gen/counterfoil/api.binpb --path counterfoil
	@$(BIN)/buf breaking protos/gen/counterfoil/api.binpb --path counterfoil --against protos/released.binpb
	@$(BIN)/buf format --diff --exit-code protos --exclude-path protos/gen
	@$(BIN)/python tools/docs.py --check
	@$(BIN)/python tools/client.py --check
	@$(BIN)/python -m tools.slo --check
	@$(BIN)/hadolint services/*/Dockerfile gateway/Dockerfile cli/Dockerfile examples/Dockerfile
	@$(BIN)/python tools/manifests.py
	@for profile in "" observability arangodb demo tools "*"; do $(BIN)/docker-compose --profile "$$profile" config --quiet; done
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/mypy

format: setup ## Format Python and protos in place.
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .
	@$(BIN)/buf format -w protos --exclude-path protos/gen

protos: setup ## Generate Python code and the descriptor image from protos/.
	@$(BIN)/python tools/protos.py

slo: setup ## Write rules, their tests, dashboards and docs/reference/slo.md from observability/slo.yaml.
	@$(BIN)/python -m tools.slo

locks: setup ## Resolve the dependencies anew into locks/ (all, and one per service).
	@$(BIN)/python tools/locks.py

bench: setup ## Measure, as ratios within one run; prints the table for docs/benchmarks.md.
	@$(BIN)/python -m tests.bench $(ARGS)

docs: setup ## Write docs/reference/ and the typed client from the code.
	@$(BIN)/python tools/docs.py
	@$(BIN)/python tools/client.py

clean: ## Remove the virtual environment and caches, never data.
	@rm -rf $(VENV) $(CHECKERS) .mypy_cache .ruff_cache .pytest_cache .hypothesis
