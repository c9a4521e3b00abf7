# Two commands for a fresh machine: `make demo` and `make test`. Python >= 3.11 and make are all they need.
PYTHON ?= python3
PORT ?= 8080
BIN := .venv/bin
WORKERS ?= auto
UV := $(shell command -v uv 2>/dev/null)

.PHONY: demo test check bench lock clean

demo: .venv/runtime.stamp
	exec $(BIN)/pointsman demo --port $(PORT)

test: check
	$(BIN)/pytest -n $(WORKERS)

check: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# ``make bench PEERS=FOLDER`` installs other gateways there and measures them too. Needs nginx and wrk.
bench: .venv/dev.stamp
	$(BIN)/python -m tests.benchmarks.gateways $(if $(PEERS),--peers $(PEERS))
	$(BIN)/python -m tests.benchmarks.streams
	$(BIN)/python -m tests.benchmarks.routing
	$(BIN)/python -m tests.benchmarks.mailbox

# Writes both locks anew from pyproject.toml; needs uv.
lock:
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --group build -o requirements.lock pyproject.toml
	uv pip compile --universal --generate-hashes --python-version 3.11 --no-header --group build --group dev -c requirements.lock -o requirements-dev.lock pyproject.toml

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis

.venv/bin/python:
ifdef UV
	uv venv --quiet --python $(PYTHON) .venv
else
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Pointsman needs Python 3.11 or newer; try make PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
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
