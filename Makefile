# `make run` and `make test` set up whatever they need first, once; see .ci/setup.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# The servers and tools that the tests run netprobe against.
APT_PACKAGES := aardvark-dns catatonit chromium conmon debootstrap dnsmasq-base iproute2 knot netavark nftables openssl \
	pgbouncer podman postgresql procps prometheus prometheus-alertmanager prometheus-pushgateway redis-server runc squid \
	tinyproxy unbound util-linux
# kubectl comes from more than one place, and two of them do not go together.
APT_PACKAGES += $(if $(shell command -v kubectl),,kubernetes-client)
# What the benchmarks compare netprobe with.
BENCH_PACKAGES := curl prometheus-blackbox-exporter
BENCHMARKS := $(filter-out tests.benchmarks.__init__,$(subst /,.,$(basename $(wildcard tests/benchmarks/*.py))))

# Handed on: make run DEMO_ARGS='--duration 60s', make test PYTEST_ARGS='tests/probers -x'
DEMO_ARGS ?=
PYTEST_ARGS ?=

# Locks hold for every platform and for every Python from 3.11 on, and carry no address of a registry: where packages
# come from is the machine's own configuration.
COMPILE := $(BIN)/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --no-annotate \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock' $(LOCK_ARGS)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.SUFFIXES:

.PHONY: help
help: ## list what make can do
	@echo 'netprobe: make TARGET'
	@sed -n 's/^\([a-z-]*\):.* ## \(.*\)/  \1|\2/p' $(firstword $(MAKEFILE_LIST)) | awk -F '|' '{printf "%-12s %s\n", $$1, $$2}'

.PHONY: run
run: ## set up, and run the demo: real servers on loopback and the agent that watches them
	@.ci/setup demo '$(PYTHON)'
	@$(BIN)/netprobe demo $(DEMO_ARGS)

.PHONY: test
test: packages privileges setup lint ## set up, and run everything: lint and all tests
	@.ci/as-root .ci/tests $(PYTEST_ARGS)

.PHONY: privileges
privileges:
	@.ci/as-root true

.PHONY: lint
lint: setup ## ruff, strict mypy, and the layers of the package
	$(BIN)/python -m ruff check
	$(BIN)/python -m ruff format --check
	$(BIN)/python -m mypy
	$(BIN)/lint-imports

.PHONY: setup
setup: ## make .venv with everything a developer needs
	@.ci/setup dev '$(PYTHON)'

.PHONY: packages
packages: ## install the system packages that the tests need
	@.ci/system-packages $(APT_PACKAGES)

.PHONY: lock
lock: setup ## rewrite the lock files to the newest versions pyproject.toml allows
	$(COMPILE) --upgrade --extra demo --group pyproject.toml:dev --output-file requirements-dev.lock pyproject.toml
	$(COMPILE) --constraint requirements-dev.lock --extra demo --group pyproject.toml:build --output-file requirements-demo.lock pyproject.toml
	$(COMPILE) --constraint requirements-dev.lock --output-file requirements.lock pyproject.toml
	set -e; for airflow in $(wildcard tests/airflow/*.in); do $(COMPILE) --output-file $${airflow%.in}.lock $$airflow; done

.PHONY: docs
docs: setup ## rewrite what is written from the code: the reference of the configuration, the rules for the operator
	$(BIN)/python -m tests.reference
	$(BIN)/python -m tests.prometheus_rules

.PHONY: dashboards
dashboards: setup ## rewrite what Grafana reads from the dashboards in the code
	$(BIN)/python -m grafana

.PHONY: bench
bench: packages setup ## print what probing costs: CPU, memory, loop lag
	@.ci/system-packages $(BENCH_PACKAGES)
	@set -e; for benchmark in $(BENCHMARKS); do echo "--- $$benchmark"; $(BIN)/python -m $$benchmark; done

.PHONY: lab
lab: packages privileges setup ## break things in a world of network namespaces, and put what netprobe said into README.md
	@.ci/as-root $(BIN)/python -m tests.lab.campaign --write README.md

.PHONY: clean
clean: ## remove .venv and every cache
	rm -rf $(VENV) .airflow .prometheus build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	find agent grafana tests -name __pycache__ -prune -exec rm -rf {} +
	@[ ! -e .containers ] || .ci/as-root sh -c 'umount .containers/store-*/overlay 2>/dev/null; rm -rf .containers'
