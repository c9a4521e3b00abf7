# Two commands for a fresh machine: `make demo` and `make test`. Python >= 3.11 and make are all they need.
PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
WORKERS ?= auto
SEEDS ?= 200
SEED ?=
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test clients check native native-tree test-native simulate bench lock clean

demo: .venv/runtime.stamp
	exec $(BIN)/pointsman demo --port $(PORT)

# Programs of other people's that its tests need are installed on CI only; elsewhere those tests are skipped without them.
test: check
	$(if $(filter true,$(CI)),tests/daemon/clients/install)
	$(BIN)/pytest -n $(WORKERS)
	$(MAKE) test-native NATIVE=build/native

# Clients that others wrote (curl, wrk, ab, nginx, HAProxy, OpenAI's SDK for Node): installs what is missing and tests with them.
clients: .venv/dev.stamp
	tests/daemon/clients/install
	$(BIN)/pytest -n $(WORKERS) tests/daemon/clients

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The compiled build (ADR 0014): a wheel in dist/, and a .venv-native with it. Needs gcc; takes five to ten minutes, for it is
# compiled, run and compiled again; NATIVE=build/native is compiled once only, in half the time, and what the tests run on.
NATIVE ?= build/profiled
native: $(NATIVE).stamp .venv-native/bin/python
	rm -rf dist
	cd $(NATIVE) && ../../$(BIN)/python -m hatchling build -t wheel -d ../../dist
	$(if $(UV),uv pip install --quiet --python .venv-native/bin/python --require-hashes -r requirements.lock,.venv-native/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock)
	$(if $(UV),uv pip install --quiet --python .venv-native/bin/python --no-deps --force-reinstall dist/*.whl,.venv-native/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall dist/*.whl)

# The compiled modules lie beside their sources there, where the tests of the actors and of the real daemon run on them.
NATIVE_SOURCES := $(shell git ls-files 'messages/*.py' 'actors/*.py' 'otel/*.py' 'runtime/*.py' 'native/*.py' pyproject.toml hatch_build.py)
build/native.stamp build/profiled.stamp: build/%.stamp: .venv/dev.stamp $(NATIVE_SOURCES)
	$(BIN)/python -m native.build $(if $(filter profiled,$*),--profiled) build/$*
	touch $@

# Tests of what is not compiled.
NOT_COMPILED := admin cli config explain naming redirects registry regex simulat upstream_tls

native-tree: $(NATIVE).stamp
	rm -rf $(NATIVE)/tests && cp -r tests examples docs README.md CHANGELOG.md $(NATIVE)/

test-native: native-tree native
	.venv-native/bin/pointsman --version | grep -F '(compiled)'
	cd $(NATIVE) && ../../$(BIN)/python -m pytest -n $(WORKERS) $(NOT_COMPILED:%=--ignore-glob '*/test_%*') tests/actors tests/daemon

# Random storms over the whole house under virtual time; one that breaks a law names itself. SEED=7 plays that one alone.
simulate: .venv/dev.stamp
	POINTSMAN_STORM_SEEDS=$(SEEDS) POINTSMAN_STORM_SEED=$(SEED) $(BIN)/pytest $(if $(SEED),-k test_no_storm,-n $(WORKERS) -k test_no_) tests/system/test_storms.py

# ``make bench PEERS=FOLDER`` installs other gateways there and measures them too. Needs nginx and wrk.
# Measures the compiled build.
bench: native-tree
	cd $(NATIVE) && for name in "gateways $(if $(PEERS),--peers $(abspath $(PEERS)))" streams routing mailbox; do \
	  ../../$(BIN)/python -m tests.benchmarks.$$name || exit 1; done

# Writes both locks anew from pyproject.toml; needs uv.
lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --group build -o requirements.lock pyproject.toml
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --group build --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf .venv .venv-native build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python .venv-native/bin/python:
ifdef UV
	uv venv --quiet --python $(PYTHON) $(@:/bin/python=)
else
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pointsman needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv $(@:/bin/python=)
endif

# The locked packages are checked against their hashes; the project itself is installed in place with the locked hatchling.
define install
	$(if $(UV),uv pip install --quiet --python $(BIN)/python --require-hashes -r $(1),$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $(1))
	$(if $(UV),uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .,$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .)
	touch $@
endef

.venv/runtime.stamp: requirements.lock pyproject.toml | .venv/bin/python
	$(call install,requirements.lock)

.venv/dev.stamp: requirements-dev.lock pyproject.toml | .venv/bin/python
	$(call install,requirements-dev.lock)
	touch .venv/runtime.stamp
