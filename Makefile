# Everything that is done with this repository, from a fresh clone on: `make demo` and `make test` need nothing
# before them. `make help` lists the targets.

VENV   := .venv
BIN    := $(VENV)/bin
PROFILE ?= local
LOCK   := requirements/dev.txt
STAMP  := $(VENV)/.set-up
# The environment of the libraries that selection is measured beside.
BENCH  := .venv-bench
# The environment that the docs are built in.
DOCS   := .venv-docs
# The environment of what looks packages up in the database of known weaknesses.
AUDIT  := .venv-audit
# The services of all profiles, by app id: each is an image of its own.
SERVICES := ingest infer select-uncertain label-queue retrain-trigger uplink portal
# Where the images come from, in deploy/k8s too; `docker` or `podman` builds them, or the one-node cluster's tool.
TAG    := dev
BUILD  := docker build
# What CI runs of trust too.
TRUST := $(addprefix tests/service/test_,roles.py secrets.py tokens.py defects.py) tests/unit/test_hostile.py
# The tool that `make test-k8s CLUSTER=one-node` brings a cluster up with.
CLUSTER_TOOL := ../shared/tools/cluster/cluster
# Tests wait for timers and brokers a third of their time, so more of them than cores run side by side. What needs the
# runtime is skipped without it, and fails with HALFSURE_REQUIRE_DAPR.
PYTEST := $(BIN)/python -m pytest
COMPILE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-annotate --quiet \
  --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help setup demo smoke test test-labels test-page test-queue test-training test-profiles test-edge test-traces \
  test-sources test-trust test-docs test-newcomer chaos soak audit sbom docs release test-k8s test-tilt web tilt images \
  check bench bench-selection up down doctor lock clean

help: ## Show what there is to do
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-15s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(STAMP) ## Make the Python environment and get the Dapr runtime (the first time: about seven minutes)
	@$(BIN)/halfsure setup

demo: setup ## Close the loop in front of you: real images, real services, a report in out/demo (PROFILE=local|iotedge|azure)
	@[ "$(PROFILE)" = local ] || $(BIN)/halfsure setup --profile $(PROFILE)
	@$(BIN)/halfsure demo --profile $(PROFILE)

smoke: setup ## Follow one sample all the way to a model in service (PROFILE=local|iotedge|azure)
	@[ "$(PROFILE)" = local ] || $(BIN)/halfsure setup --profile $(PROFILE)
	@$(BIN)/halfsure smoke --profile $(PROFILE)

test: $(STAMP) check ## Set everything up, lint, check types and import rules, and run all tests
	@$(BIN)/halfsure setup --with-cli
	$(PYTEST) tests/unit tests/contract tests/service tests/sources -n 4
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/integration -n 3 --dist loadfile
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/loop -n 3 --dist worksteal

test-profiles: setup ## Play the loop on every profile, with the servers behind them (about 8 minutes)
	@$(BIN)/halfsure setup --profile iotedge
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/profiles

test-edge: setup ## Sites, a cloud and an IoT Edge device in network namespaces, over links that are cut (Linux, root; about 20 minutes)
	@[ "$$(uname)" = Linux ] && [ "$$(id -u)" = 0 ] || { echo "make test-edge makes network namespaces: it needs Linux and root"; exit 1; }
	@$(BIN)/halfsure setup --profile iotedge
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/edge -s
	$(PYTEST) tests/sources tests/service/test_sources.py tests/service/test_ingest_command.py

test-training: setup ## 50 promotions under load, kills at every step of a run, a roll-back; the numbers in out/training/report.json
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/promotions -s

test-traces: setup ## Follow samples through the real stack into a collector of OpenTelemetry (the first time: about three minutes)
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/traces

test-sources: setup ## Read cameras, recordings and OPC UA servers, the RTSP server of Debian's GStreamer with them
	HALFSURE_REQUIRE_RTSP=1 HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/sources tests/service/test_sources.py \
	  tests/service/test_ingest_command.py

test-labels: test-page test-queue ## The page in a real browser, and the queue with many; report and screenshots in out/labels

test-page: setup ## Label in a real browser in front of a whole stack (about four minutes)
	@command -v chromium >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get install -y --no-install-recommends chromium; } || \
	  { echo "make test-page needs chromium: apt install chromium"; exit 1; }
	@command -v npm >/dev/null || { echo "make test-page needs Node 20 or newer, for axe-core and to build the page again"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/browser.txt
	@cd services/portal/web && npm ci --silent --no-audit --no-fund
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/contract/test_page.py tests/page -s

chaos: setup ## Play seeded loops while everything fails in turn (RUNS=10 SEED=1 REPLICAS=1); numbers in out/chaos/report.json
	RUNS=$(RUNS) SEED=$(SEED) REPLICAS=$(REPLICAS) HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/chaos -s

soak: setup ## As many samples as 8 hours bring at 10 a second, at full speed (EVENTS=n); numbers in out/soak/report.json
	EVENTS=$(EVENTS) HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/soak -s

web: ## Build the page again into services/portal/static, which is committed (needs Node 20 or newer)
	@cd services/portal/web && npm ci --silent --no-audit --no-fund && npm run --silent check && npm run --silent build

test-queue: setup ## Claims with a million tasks, and 64 annotators under kills (about 10 minutes; out/labels/report.json)
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/crowds -s

test-trust: setup ## Roles, hostile input, secrets, tokens, care of data (CASES=n, SEED=s); out/trust/report.json
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/trust.txt
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) $(TRUST) tests/trust -s

docs: $(STAMP) $(DOCS)/.set-up ## Build the docs as a site in out/docs, its reference from the code; every command in it is checked
	@$(BIN)/python -m docs.site out/docs-source
	@NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --quiet --config-file docs/site/mkdocs.yml
	$(PYTEST) tests/contract/test_docs.py tests/commands/test_site.py -q

test-docs: docs setup ## Type every command that the docs say can be run, on a real stack; reports in out/docs-commands
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/commands -s

test-newcomer: setup ## Type the README's quick start in a fresh clone, on pictures of one's own; out/docs-commands/newcomer.json
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/commands/test_newcomer.py -s

release: $(STAMP) ## Wheel, bills of materials, overlays with that version, changelog (VERSION=1.2.3); images where a builder is
	@$(BIN)/python deploy/release.py "$(VERSION)"

audit: $(AUDIT)/.set-up ## Look all locked packages up in the database of known weaknesses (asks the network; SERVICE=pypi|osv)
	@# Strict: a package that the database was not asked about is a failure, not a footnote.
	@failed=0; for lock in requirements/*.txt; do echo "$$lock"; \
	  $(AUDIT)/bin/pip-audit --strict --require-hashes --disable-pip --progress-spinner off \
	    --vulnerability-service $(or $(SERVICE),pypi) --requirement $$lock || failed=1; done; exit $$failed

sbom: $(STAMP) ## Write the bill of materials of every service (CycloneDX 1.6) from the hashed requirements to out/sbom
	@mkdir -p out/sbom
	for service in $(SERVICES); do \
	  $(BIN)/python deploy/sbom.py $$service requirements/$$service.txt > out/sbom/$$service.json || exit 1; done

check: $(STAMP) ## Lint, check types and import rules
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --level error
	$(BIN)/lint-imports

images: ## Build the image of every service (BUILD="podman build", TAG=1.2.3, MODEL=folder of deploy/model, SOURCES=-sources, AZUREML=-azureml)
	for service in $(SERVICES); do $(BUILD) . -f deploy/Dockerfile -t halfsure/$$service:$(TAG) \
	  --build-arg SERVICE=$$service --build-arg VERSION=$(TAG) --build-arg REVISION=$$(git rev-parse HEAD) \
	  $(if $(MODEL),--build-arg MODEL=$(MODEL)) \
	  $$([ $$service != ingest ] || echo --build-arg SOURCES=$(SOURCES)) \
	  $$([ $$service != retrain-trigger ] || echo --build-arg AZUREML=$(AZUREML)) || exit 1; done

test-k8s: $(STAMP) ## Close the loop on the current Kubernetes context (CLUSTER=one-node: on a cluster made for it)
	CLUSTER="$(CLUSTER)" CLUSTER_TOOL="$(CLUSTER_TOOL)" $(PYTEST) tests/k8s -s

tilt: setup ## Develop with Tilt: changes live in seconds, in a cluster or on this machine (ON=machine|cluster)
	@PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m services.cli.tilt up $(if $(ON),-- --on $(ON))

test-tilt: setup ## See that `tilt ci` ends well, and does not when a service is broken (about three minutes)
	@$(BIN)/halfsure setup --with-cli
	HALFSURE_REQUIRE_DAPR=1 $(PYTEST) tests/tilt -s

bench: setup ## Measure the chain and inference beside their ceilings; rows in out/bench/report.json (RECORD=1: into the history)
	@$(BIN)/python -m bench $(if $(RECORD),--record)

bench-selection: $(BENCH)/.set-up ## Measure selection beside scikit-activeml, modAL and small-text (QUICK=1: in a minute)
	@OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(BENCH)/bin/python -m bench.selection $(if $(QUICK),--quick,$(OPTIONS))

up: setup ## Start the whole stack in the foreground
	@$(BIN)/halfsure up

down: $(STAMP) ## Stop a stack that was started in the background
	@$(BIN)/halfsure down

doctor: $(STAMP) ## Say what is installed, what is missing and how to get it
	@$(BIN)/halfsure doctor

lock: ## Pin all packages anew, with hashes and no download addresses
	@command -v uv >/dev/null || { echo "make lock needs uv (https://docs.astral.sh/uv/)"; exit 1; }
	$(COMPILE) pyproject.toml --all-extras --group dev --upgrade --output-file $(LOCK)
	@# Environments and tools of their own, for what not every set-up needs.
	$(COMPILE) --group standins --upgrade --output-file requirements/standins.txt
	$(COMPILE) --group docs --upgrade --output-file requirements/docs.txt
	$(COMPILE) --group audit --upgrade --output-file requirements/audit.txt
	$(COMPILE) --group browser --upgrade --output-file requirements/browser.txt
	$(COMPILE) --group trust --constraint $(LOCK) --upgrade --output-file requirements/trust.txt
	$(COMPILE) --group bench --constraint $(LOCK) --upgrade --output-file requirements/bench.txt
	@# What goes into each service's image: a part of the same lock, never another version. Images take wheels alone, but
	@# for what the device SDK of uplink needs: its paho-mqtt exists as source (pure Python) only.
	for service in $(SERVICES); do \
	  $(COMPILE) pyproject.toml --extra $$service --extra azure --extra otel --extra oidc --constraint $(LOCK) \
	    $$([ $$service != uplink ] || echo "--no-binary paho-mqtt --emit-build-options") \
	    --output-file requirements/$$service.txt || exit 1; done
	$(COMPILE) pyproject.toml --extra ingest --extra sources --extra azure --extra otel --extra oidc --constraint $(LOCK) \
	  --output-file requirements/ingest-sources.txt
	$(COMPILE) pyproject.toml --extra retrain-trigger --extra azureml --extra azure --extra otel --extra oidc --constraint $(LOCK) \
	  --output-file requirements/retrain-trigger-azureml.txt

clean: ## Remove the Python environment and all caches of this folder (the state in .halfsure stays)
	rm -rf $(VENV) $(BENCH) $(DOCS) $(AUDIT) .pytest_cache .ruff_cache .hypothesis .import_linter_cache out
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

$(BENCH)/.set-up: requirements/bench.txt $(STAMP)
	@echo "Installing the libraries that selection is measured beside into $(BENCH) ..."
	@$(BIN)/python -m venv --clear $(BENCH)
	@$(BENCH)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bench.txt
	@touch $@

$(DOCS)/.set-up: requirements/docs.txt $(STAMP)
	@echo "Installing what the docs are built with into $(DOCS) ..."
	@$(BIN)/python -m venv --clear $(DOCS)
	@$(DOCS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/docs.txt
	@touch $@

$(AUDIT)/.set-up: requirements/audit.txt $(STAMP)
	@$(BIN)/python -m venv --clear $(AUDIT)
	@$(AUDIT)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@
