# Everything a person or CI runs. Works with GNU make 3.81, which macOS has.
SHELL := /bin/sh
BIN := .venv/bin
WORKERS ?= 2
ARGS ?=
export PYTHON

LOCK := $(BIN)/uv pip compile --universal --python-version 3.11 --fork-strategy fewest --generate-hashes \
	--no-emit-index-url --no-header --quiet $(ARGS)

.PHONY: help demo test check cluster cluster-down cluster-tools images bench format setup lock clean
.DEFAULT_GOAL := help

help: ## List the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -e 's/:.*## /|/' | awk -F'|' '{ printf "make %-13s %s\n", $$1, $$2 }'

demo: ## Evolve a tiny vision-language model on real images, about ten minutes on two cores (ARGS=... for mstarctl demo)
	@sh tools/setup.sh demo
	@$(BIN)/mstarctl demo $(ARGS)

test: setup ## Run the tests (WORKERS=2, ARGS="-k name" and the like)
	@$(BIN)/python -m pytest -n $(WORKERS) $(ARGS)

check: setup ## Run what CI runs beside the tests: ruff, formatting, mypy, import contracts, clean files
	@failed=0; \
	$(BIN)/ruff check . || failed=1; \
	$(BIN)/ruff format --check . || failed=1; \
	$(BIN)/mypy || failed=1; \
	$(BIN)/lint-imports || failed=1; \
	$(BIN)/python tools/check_files.py || failed=1; \
	exit $$failed

cluster: ## Start a one-node Kubernetes and an S3 server on this machine, with the images loaded (Debian, root, Go)
	@tests/cluster/harness/up.sh

cluster-down: ## End it, and remove every trace but installed packages and built tools
	@tests/cluster/harness/down.sh

cluster-tools: ## Build kubectl, helm and what else the cluster is made of, and print their folder
	@tests/cluster/harness/tools.sh

images: ## Build the images with docker, podman or buildah (BASE=image VARIANT=cpu|gpu REGISTRY= TAG= PUSH=1)
	@tools/images.sh

bench: setup ## Measure against the bare libraries and write docs/benchmarks.md
	@$(BIN)/python -m bench $(ARGS)

format: setup ## Format, and fix what ruff can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

setup: ## Install what the tests and checks need into .venv
	@sh tools/setup.sh test

lock: setup ## Resolve the locks again, keeping versions that still fit (ARGS=--upgrade takes new ones)
	$(LOCK) pyproject.toml --extra demo --extra deepspeed --extra answers --group dev --output-file requirements/test.txt
	$(LOCK) pyproject.toml --extra demo --constraints requirements/test.txt --output-file requirements/demo.txt
	$(LOCK) pyproject.toml --constraints requirements/test.txt --output-file requirements/cli.txt
	@sh images/lock.sh
	$(LOCK) --group bootstrap --constraints requirements/test.txt --output-file requirements/bootstrap.txt

clean: ## Remove the environment, caches and build outputs (never runs or their data)
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
