# Two commands matter: `make demo` and `make test`. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
export PYTHONPATH := hack
# Debian's own programs before whatever else is called so
export PATH := /usr/sbin:/usr/bin:/sbin:/bin:$(PATH)
PY := .venv/bin/python
CLUSTER_TESTS := tests/cluster

.PHONY: help venv prepare demo test lint format types layers unit bare netns cluster crds up down images bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 18

venv:
	@hack/bootstrap.sh

demo: venv ## a real cluster, Sluice installed by helm, and pods that leave with their egress IP
	@$(PY) -m testbed.demo

test: venv ## everything: lint, types, layers, unit, bare machine, namespaces, cluster
	@$(PY) -m testbed.suite

lint: venv ## ruff: style and formatting
	@.venv/bin/ruff check . && .venv/bin/ruff format --check .

format: venv ## let ruff reformat
	@.venv/bin/ruff check --fix -q . ; .venv/bin/ruff format .

types: venv ## mypy --strict
	@.venv/bin/mypy

layers: venv ## who may import whom
	@.venv/bin/lint-imports

unit: venv ## unit tests (seconds, no privileges)
	@.venv/bin/pytest tests/unit -q

bare: venv ## the whole set-up in a fresh Debian with four packages (root; SLUICE_BARE=bookworm,trixie)
	@.venv/bin/pytest tests/bare -q --timeout=900

netns: venv ## the agent's rules, the proxy and the recorder in network namespaces (root)
	@.venv/bin/pytest tests/netns -q

cluster: venv ## the system on a real cluster (root, or a Docker engine)
	@.venv/bin/pytest $(CLUSTER_TESTS) -q

crds: venv ## regenerate crds/ and the chart's copy from the models
	@$(PY) -m sluice_api.crd && $(PY) -m sluice_api.reference && cp crds/*.yaml charts/sluice/files/crds/

prepare: venv ## get and build everything that demo and test need, but start nothing
	@$(PY) -m testbed prepare --tests

up: venv ## only the cluster
	@$(PY) -m testbed up

down: venv ## take the cluster down again
	@$(PY) -m testbed down

images: venv ## build the images
	@$(PY) -m testbed.images build

bench: venv ## data path and proxy, ours and the alternatives in one run
	@$(PY) bench/datapath.py && $(PY) bench/proxy.py

clean: ## remove the environment and caches of this checkout (not the built binaries)
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis dist
