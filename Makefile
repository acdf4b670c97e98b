# make run, make test, make e2e, make bench; `make lock` after changing dependencies in pyproject.toml, `make manifests`
# after changing a chart, the settings or the version; `make dist` builds what a release consists of.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
SOURCES := responder migrations tests config/dev.py

.PHONY: run test check e2e bench manifests dist lock clean

run: $(VENV)/runtime
	@$(BIN)/python config/dev.py

# One test per core at a time, then the tests that need a process to themselves. `make test WORKERS=0` runs all tests one
# after the other, and SELECTED='not e2e' leaves out the end-to-end tests.
WORKERS ?= auto
SELECTED ?= e2e or not e2e
PARALLEL := --numprocesses $(WORKERS) --dist loadfile --no-loadscope-reorder --max-worker-restart 0
test: check .venv-clients/installed .venv-release/installed
	$(BIN)/pytest -m '($(SELECTED)) and not serial' $(PARALLEL) --cov --cov-report= --cov-fail-under=0
	$(BIN)/pytest -m '($(SELECTED)) and serial' --cov --cov-append
	$(BIN)/coverage report --include='responder/dns/*,responder/tokens/*' --fail-under=100

check: $(VENV)/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

e2e: $(VENV)/installed .venv-clients/installed
	$(BIN)/pytest -m e2e

bench: $(VENV)/installed
	$(BIN)/python -m tests.bench

# Makes the plain manifests from the charts, and the schema of their values from the settings. Needs helm.
manifests: $(VENV)/installed
	$(BIN)/python -m tests.support.charts

# Makes the wheel, the source archive, and a list of their contents from the lock file (CycloneDX), in $(DIST).
DIST := dist
dist: .venv-release/installed
	.venv-release/bin/python -m hatchling build -d $(DIST)
	.venv-release/bin/cyclonedx-py requirements requirements.txt --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file $(DIST)/sbom.cdx.json

# Everything is pinned by hash, and read from PyPI and this directory only. The runtime is what `make run` needs: the
# service alone, without the tools for tests. The development environment includes it.
$(VENV)/runtime: requirements.txt requirements-build.txt pyproject.toml
	@echo 'installing the service into $(VENV); this is needed only once'
	$(MAKE_VENV)
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check --require-hashes -r requirements-build.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/installed: requirements-dev.txt pyproject.toml
	$(MAKE_VENV)
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $(VENV)/runtime $@

define MAKE_VENV
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
endef

# ACME clients for the end-to-end tests, in an environment of their own because of their libraries.
.venv-clients/installed: requirements-clients.txt
	$(PYTHON) -m venv --clear .venv-clients
	.venv-clients/bin/python -m pip install --quiet --require-hashes -r requirements-clients.txt
	@touch $@

# The tools that `make dist` runs.
.venv-release/installed: requirements-release.txt
	$(PYTHON) -m venv --clear .venv-release
	.venv-release/bin/python -m pip install --quiet --require-hashes -r requirements-release.txt
	@touch $@

LOCK := uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate

lock:
	$(LOCK) pyproject.toml -o requirements.txt
	$(LOCK) pyproject.toml --group dev -o requirements-dev.txt
	$(LOCK) --group build -o requirements-build.txt
	$(LOCK) --group clients -o requirements-clients.txt
	$(LOCK) --group release -o requirements-release.txt

clean:
	rm -rf .venv .venv-* .dev dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench.json
