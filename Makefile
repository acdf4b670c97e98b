# make run, make test, make e2e, make bench; `make lock` after changing dependencies in pyproject.toml, `make manifests`
# after changing a chart or the settings.

PYTHON ?= python3
BIN := .venv/bin
SOURCES := responder migrations tests config/dev.py

.PHONY: run test check unit e2e bench manifests lock clean

run: .venv/installed
	@$(BIN)/python config/dev.py

test: check .venv-clients/installed
	$(BIN)/pytest --cov --cov-report=term-missing:skip-covered

check: .venv/installed
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

e2e: .venv/installed .venv-clients/installed
	$(BIN)/pytest -m e2e

bench: .venv/installed
	$(BIN)/python -m tests.bench

# The plain manifests from the charts, and the settings in the schema of their values; needs helm.
manifests: .venv/installed
	$(BIN)/python -m tests.support.charts

# Everything is pinned by hash; nothing but PyPI and this directory is read.
.venv/installed: requirements-dev.txt pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --require-hashes -r requirements-dev.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation -e .
	@touch $@

# ACME clients that the end-to-end tests drive, apart from us: they bring libraries of their own.
.venv-clients/installed: requirements-clients.txt
	$(PYTHON) -m venv --clear .venv-clients
	.venv-clients/bin/python -m pip install --quiet --require-hashes -r requirements-clients.txt
	@touch $@

LOCK := uv pip compile --quiet --universal --no-strip-extras --python-version 3.11 --generate-hashes --no-header --no-annotate

lock:
	$(LOCK) pyproject.toml -o requirements.txt
	$(LOCK) pyproject.toml --group dev -o requirements-dev.txt
	$(LOCK) --group build -o requirements-build.txt
	$(LOCK) --group clients -o requirements-clients.txt

clean:
	rm -rf .venv .venv-clients .dev dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache bench.json
