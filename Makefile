# Each target makes the virtual environment that it needs, once, under .venv/. Nothing is installed elsewhere.

PYTHON ?= python3
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
UV := .venv/uv/bin/uv
# The oldest and the newest Airflow that are tested here. Airflow 2.11 has no Python 3.13.
NEWEST := 3.3.2
OLDEST := $(shell $(PYTHON) -c 'import sys; print("2.11.2" if sys.version_info < (3, 13) else "")')
AIRFLOW_HOME := $(CURDIR)/.airflow/demo
# Files in the order in which they are collected.
IN_PARALLEL := -q --dist loadfile --no-loadscope-reorder
# What a target prints comes at its end, and not mixed with the others' (make of macOS cannot).
AT_ONCE := --no-print-directory --jobs $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# What runs here runs the installed wheel, as a user has it. Without these Python would find the checkout's package first.
export PYTHONSAFEPATH := 1
unexport PYTHONPATH
# Each process would compile Airflow anew, and there are some hundred.
unexport PYTHONDONTWRITEBYTECODE
PACKAGE := $(shell find airflow_provider_completion -name __pycache__ -prune -o -print)

.PHONY: demo test test-all test-long test-celery test-browser $(BROWSED:%=test-browser-%) screenshots check docs $(NEWEST:%=test-%) $(OLDEST:%=test-%) bench soak clean
.SECONDARY:

demo: .venv/airflow-$(NEWEST)/.ready ## run the example Dag, against a local app or AIRFLOW_CONN_COMPLETION_DEFAULT
	@$(PYTHON) tests/demo.py $(AIRFLOW_HOME) .venv/airflow-$(NEWEST)/bin

test: ## everything that CI runs, at once, since much of it waits: some sixteen minutes on two cores
	@$(MAKE) $(AT_ONCE) $(NEWEST:%=test-%) $(OLDEST:%=test-%) check docs

test-all: test test-long test-celery test-browser ## that, and what takes minutes or needs more than Python packages; it says what it installs

test-long: .venv/airflow-$(NEWEST)/.ready ## 20,000 rows from a table into a table, through two kills; needs PostgreSQL
	.venv/airflow-$(NEWEST)/bin/pytest -q -m long

test-celery: .venv/airflow-celery/.ready ## shards on two Celery workers, one of which is killed; needs redis-server
	@command -v redis-server || { echo "Installs redis-server with apt-get."; $(SUDO) apt-get install --yes --quiet redis-server; }
	.venv/airflow-celery/bin/pytest -q -s tests/airflow/test_celery.py

# Airflows with pages of their own: the last with the old ones, the first that ask a human on them, the newest.
BROWSED := $(OLDEST) 3.1.8 $(NEWEST)
test-browser: $(BROWSED:%=test-browser-%) ## the pages of Airflow in a real browser; needs chromium
$(BROWSED:%=test-browser-%): test-browser-%: .venv/airflow-%/.ready
	@command -v chromium || { echo "Installs chromium with apt-get."; $(SUDO) apt-get install --yes --quiet chromium; }
	@echo "Installs playwright into .venv/airflow-$*."
	$(UV) pip install --quiet --python .venv/airflow-$*/bin/python --constraints tests/constraints/airflow-$*.txt "$$(ls .venv/dist/*.whl)[browser]"
	.venv/airflow-$*/bin/pytest -q tests/browser $(REPORT)

screenshots: test-browser-$(NEWEST) ## make the pictures in the documentation anew, from what that leaves
	cp $(addprefix .airflow/browser/$(NEWEST)/,connection_form.png streaming_log.png human_review.png) docs/images

check: .venv/airflow-$(NEWEST)/.ready ## lint and types
	.venv/airflow-$(NEWEST)/bin/ruff check .
	.venv/airflow-$(NEWEST)/bin/ruff format --check .
	.venv/airflow-$(NEWEST)/bin/mypy

docs: .venv/airflow-$(NEWEST)/.ready ## the documentation as HTML, in docs/_build/html
	.venv/airflow-$(NEWEST)/bin/python -m sphinx -Wnq --keep-going -c docs . docs/_build/html

test-$(NEWEST): .venv/airflow-$(NEWEST)/.ready
	.venv/airflow-$(NEWEST)/bin/pytest $(IN_PARALLEL) -n 3

ifneq ($(OLDEST),)
test-$(OLDEST): .venv/airflow-$(OLDEST)/.ready
	.venv/airflow-$(OLDEST)/bin/pytest $(IN_PARALLEL) -n 2 tests/airflow
endif

bench: .venv/airflow-$(NEWEST)/.ready ## measure; not part of the tests
	PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.bench

SOAK := PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m
soak: .venv/airflow-$(NEWEST)/.ready ## 100,000 calls with random faults; batches killed, interrupted, and of 100,000 rows
	$(SOAK) tests.soak
	$(SOAK) tests.batch.killing --kills 1000
	$(SOAK) tests.batch.killing --kills 1000 --store stored
	$(SOAK) tests.batch.killing --kills 1000 --store slow
	$(SOAK) tests.batch.interrupting --times 100 --rows 1000
	$(SOAK) tests.batch.many_rows --rows 100000
	$(SOAK) tests.batch.many_shards --shards 8 --rows 50000

clean: ## remove what the targets above made
	rm -rf .venv .airflow docs/_build .mypy_cache .pytest_cache .ruff_cache

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON) is older than 3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/pip install --quiet --disable-pip-version-check uv

.venv/dist/.built: pyproject.toml README.md LICENSE $(PACKAGE) | $(UV)
	$(UV) build --quiet --wheel --clear --out-dir $(@D) .
	@touch $@

# What the package needs, and what else the tests need.
.venv/airflow-%/.needed: tests/constraints/airflow-%.txt pyproject.toml | .venv/dist/.built
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --constraints $< apache-airflow==$* "$$(ls .venv/dist/*.whl)[$(if $(filter $(NEWEST),$*),dev,test)]"
	@rm -f $(@D)/migrated.db
	@touch $@

# The newest Airflow, with Celery. The other tests do without.
.venv/airflow-celery/.needed: tests/constraints/airflow-$(NEWEST).txt pyproject.toml | .venv/dist/.built
	@echo "Installs apache-airflow-providers-celery and redis into $(@D)."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --constraints $< apache-airflow==$(NEWEST) apache-airflow-providers-celery redis "$$(ls .venv/dist/*.whl)[test]"
	@rm -f $(@D)/migrated.db
	@touch $@

.venv/airflow-%/.ready: .venv/airflow-%/.needed .venv/dist/.built
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps --reinstall .venv/dist/*.whl
	@touch $@
