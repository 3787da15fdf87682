# Everything that is done with this repository, from a fresh clone on: `make demo` and `make test` need nothing
# before them. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
LOCK   := requirements/dev.txt
STAMP  := $(VENV)/.set-up
# Ends with the tests when CI calls it: integration tests then fail, not skip, where the runtime is absent.
PYTEST := $(BIN)/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help setup demo test check bench up down doctor lock clean

help: ## Show what there is to do
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the Python environment and get the Dapr runtime (the first time: about seven minutes)
	@$(BIN)/halfsure setup

demo: setup ## Close the loop in front of you: real images, real services, a report in out/demo
	@$(BIN)/halfsure demo

test: $(STAMP) check ## Set everything up, lint, check types and import rules, and run all tests
	@$(BIN)/halfsure setup --with-cli
	$(PYTEST) tests/unit tests/contract tests/service -n 2
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/integration
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/loop

check: $(STAMP) ## Lint, check types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports

bench: setup ## Measure the chain's rate beside empty handlers on the same components
	@$(BIN)/python -m bench

up: setup ## Start the whole stack in the foreground
	@$(BIN)/halfsure up

down: $(STAMP) ## Stop a stack that was started in the background
	@$(BIN)/halfsure down

doctor: $(STAMP) ## Say what is installed, what is missing and how to get it
	@$(BIN)/halfsure doctor

lock: ## Pin all packages anew, with hashes and no download addresses
	@command -v uv >/dev/null || { echo "make lock needs uv (https://docs.astral.sh/uv/)"; exit 1; }
	uv pip compile pyproject.toml --universal --python-version 3.11 --all-extras --group dev \
	  --generate-hashes --no-emit-index-url --no-annotate --upgrade --quiet \
	  --custom-compile-command "make lock" --output-file $(LOCK)

clean: ## Remove the Python environment and all caches of this folder (the state in .halfsure stays)
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis .import_linter_cache out
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamp is older than what it was made from only when something changed, so a second run does nothing.
$(STAMP): $(LOCK) pyproject.toml
	@python=""; for one in $(PYTHON) python3.13 python3.12 python3.11 python3 python; do \
	  if command -v $$one >/dev/null 2>&1 && \
	     $$one -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$one; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "halfsure needs Python 3.11 or newer with venv; found: $$(python3 --version 2>&1 || echo none)."; \
	  echo "Install one (apt install python3 python3-venv, brew install python, python.org), or name it: make PYTHON=/path/to/python3.11"; \
	  exit 1; \
	fi; \
	echo "Python environment in $(VENV) with $$($$python --version) ..."; \
	[ -x $(BIN)/python ] && $(BIN)/python -m pip --version >/dev/null 2>&1 || $$python -m venv --clear $(VENV)
	@echo "Installing the locked packages into $(VENV), about a minute ..."
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(LOCK)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $(STAMP)
