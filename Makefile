# Each target makes the virtual environment that it needs, once, under .venv/. Nothing is installed elsewhere.

PYTHON ?= python3
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)
UV := .venv/uv/bin/uv
# The Airflows that are tested here, each on Python 3.11, the newest on others as well. The first has no Python 3.13.
AIRFLOWS := 2.11.2 3.0.6 3.1.8 3.2.2 3.3.2
NEWEST := $(lastword $(AIRFLOWS))
ROWS := $(AIRFLOWS:%=%-python3.11) $(addprefix $(NEWEST)-python,3.12 3.13 3.14)
# What is on $(PYTHON) goes without its name.
THIS := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
MATRIX := $(ROWS:%-python$(THIS)=%)
OLDEST := $(if $(filter 3.11 3.12,$(THIS)),$(firstword $(AIRFLOWS)))
# What takes long with each Airflow is run on these.
ENDS := $(OLDEST) $(NEWEST)
# Airflows with pages of their own: the last with the old ones, the first that ask a human on them, the newest.
BROWSED := $(OLDEST) 3.1.8 $(NEWEST)
CELLS := $(sort $(MATRIX) $(NEWEST) $(OLDEST))
# Of one of these, such as 3.3.2 or 3.3.2-python3.13: its Airflow; and its interpreter, of pyenv or on the path, or nothing.
airflow_of = $(firstword $(subst -python, ,$(1)))
python_of = $(if $(findstring -python,$(1)),$(call interpreter,$(lastword $(subst -python, ,$(1)))),$(PYTHON))
interpreter = $(firstword $(wildcard $(or $(PYENV_ROOT),$(HOME)/.pyenv)/versions/$(1).*/bin/python$(1)) $(shell command -v python$(1)))
AT_HAND = $(foreach cell,$(MATRIX),$(if $(call python_of,$(cell)),$(cell)))
AIRFLOW_HOME := $(CURDIR)/.airflow/demo
# Files in the order in which they are collected.
IN_PARALLEL := -q --dist loadfile --no-loadscope-reorder
# What a target leaves for the page that test-all writes.
REPORT = --junit-xml=.reports/$@.xml
# What is no test of pytest's says there that it has passed, and what came of it; not of a run before.
BEGINS = @rm -f .reports/$@.passed
PASSED = @mkdir -p .reports && $(if $(1),$(1),:) > .reports/$@.passed
# What a target prints comes at its end, and not mixed with the others' (make of macOS cannot).
AT_ONCE := --no-print-directory $(if $(filter output-sync,$(.FEATURES)),--output-sync=target)

# $(call needs,FILE,PACKAGE): installs a package of Debian's if its file is not there; one at a time, as apt-get has a lock.
needs = @ls $(1) >/dev/null 2>&1 || { echo "Installs $(2) with apt-get."; flock .venv/apt $(SUDO) sh -c 'apt-get update -qq && apt-get install -qqy $(2)'; }
POSTGRESQL = $(call needs,/usr/lib/postgresql/*/bin/initdb,postgresql)

export UV_PYTHON_DOWNLOADS := never
unexport VIRTUAL_ENV
# What runs here runs the installed wheel, as a user has it. Without these Python would find the checkout's package first.
export PYTHONSAFEPATH := 1
unexport PYTHONPATH
# Each process would compile Airflow anew, and there are some hundred.
unexport PYTHONDONTWRITEBYTECODE
PACKAGE := $(shell find airflow_provider_completion -name __pycache__ -prune -o -print)

.PHONY: demo test test-all tested test-long test-browser $(BROWSED:%=test-browser-%) screenshots test-tutorial check audit coverage docs $(CELLS:%=test-%) $(CELLS:%=test-install-%) $(ENDS:%=test-schedulers-%) $(ENDS:%=test-celery-%) bench bench-page soak mutants fuzz clean
.SECONDARY:
.SECONDEXPANSION:

demo: .venv/airflow-$(NEWEST)/.ready ## run the example Dag, against a local app or AIRFLOW_CONN_COMPLETION_DEFAULT
	@$(PYTHON) tests/demo.py $(AIRFLOW_HOME) .venv/airflow-$(NEWEST)/bin

test: ## everything that CI runs, at once, since much of it waits: some nine minutes on two cores
	@$(MAKE) $(AT_ONCE) --jobs $(NEWEST:%=test-%) $(OLDEST:%=test-%) check docs

# Two at a time, the longest first.
ALL = coverage $(filter-out test-$(NEWEST),$(AT_HAND:%=test-%)) test-long $(ENDS:%=test-schedulers-%) $(ENDS:%=test-celery-%) $(BROWSED:%=test-browser-%) test-tutorial $(AT_HAND:%=test-install-%) check docs audit
test-all: $(UV) ## the same on all Airflows, and what takes minutes or needs more than Python packages; docs/tested.md says what came of it
	@rm -rf .reports
	$(POSTGRESQL)
	$(if $(filter-out $(AT_HAND),$(MATRIX)),@echo "There is no such Python here: $(filter-out $(AT_HAND),$(MATRIX))")
	@$(MAKE) $(AT_ONCE) --jobs=2 --keep-going $(ALL); status=$$?; $(MAKE) --no-print-directory tested; echo "What is left over is in .venv and .airflow: make clean removes it. Debian packages stay."; exit $$status

tested: ## write docs/tested.md from the reports that are there
	@PYTHONPATH=. $(PYTHON) -m tests.matrix $(ROWS)

test-long: .venv/airflow-$(NEWEST)/.ready ## 20,000 rows from a table into a table, through two kills; needs PostgreSQL
	$(POSTGRESQL)
	.venv/airflow-$(NEWEST)/bin/pytest -q -m long $(REPORT)

# Many scenarios on one real Airflow each, with PostgreSQL.
$(ENDS:%=test-schedulers-%): test-schedulers-%: .venv/airflow-%/.ready
	$(POSTGRESQL)
	.venv/airflow-$*/bin/pytest -q -m schedulers tests/airflow/test_schedulers.py $(REPORT)

# Calls and shards on two Celery workers, one of which is killed, the other told to end.
$(ENDS:%=test-celery-%): test-celery-%: .venv/celery-%/.ready
	$(call needs,/usr/bin/redis-server,redis-server)
	$(POSTGRESQL)
	.venv/celery-$*/bin/pytest -q -s tests/airflow/test_celery.py $(REPORT)

test-browser: $(BROWSED:%=test-browser-%) ## the pages of Airflow in a real browser; needs chromium
$(BROWSED:%=test-browser-%): test-browser-%: .venv/browser-%/.ready
	$(call needs,/usr/bin/chromium,chromium)
	.venv/browser-$*/bin/pytest -q tests/browser $(REPORT)

screenshots: test-browser-$(NEWEST) ## make the pictures in the documentation anew, from what that leaves
	cp $(addprefix .airflow/browser/$(NEWEST)/,connection_form.png streaming_log.png human_review.png) docs/images

test-tutorial: .venv/airflow-$(NEWEST)/.ready ## follow docs/tutorial.md word for word, pip install included
	$(BEGINS)
	PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.tutorial --install
	$(call PASSED)

check: .venv/airflow-$(NEWEST)/.ready ## lint and types; of the workflows as well
	$(BEGINS)
	.venv/airflow-$(NEWEST)/bin/ruff check .
	.venv/airflow-$(NEWEST)/bin/ruff format --check .
	.venv/airflow-$(NEWEST)/bin/mypy
	.venv/airflow-$(NEWEST)/bin/basedpyright --pythonpath .venv/airflow-$(NEWEST)/bin/python
	.venv/airflow-$(NEWEST)/bin/zizmor --quiet --offline .github
	$(call PASSED)

coverage: .venv/airflow-$(NEWEST)/.ready ## the tests on the newest Airflow, and which branches of the package they take; fails if there are fewer than there were
	$(BEGINS)
	rm -rf .coverage && mkdir .coverage
	.venv/airflow-$(NEWEST)/bin/coverage run -m pytest $(IN_PARALLEL) -n 3 --junit-xml=.reports/test-$(NEWEST).xml
	.venv/airflow-$(NEWEST)/bin/coverage combine --quiet
	.venv/airflow-$(NEWEST)/bin/coverage report
	$(call PASSED,echo "$$(.venv/airflow-$(NEWEST)/bin/coverage report --format=total) %")

audit: .venv/airflow-$(NEWEST)/.ready ## known holes in what is installed; says so if the service of pip-audit cannot be asked
	$(BEGINS)
	mkdir -p .reports
	PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.audit $(UV) > .reports/audit.txt || { cat .reports/audit.txt; exit 1; }
	cat .reports/audit.txt
	$(call PASSED,tail -n 1 .reports/audit.txt)

docs: .venv/airflow-$(NEWEST)/.ready ## the documentation as HTML, in docs/_build/html
	$(BEGINS)
	.venv/airflow-$(NEWEST)/bin/python -m sphinx -Wnq --keep-going -c docs . docs/_build/html
	$(call PASSED)

# All of it on the newest Airflow, and what has to do with Airflow on the others.
$(CELLS:%=test-%): test-%: .venv/airflow-%/.ready
	.venv/airflow-$*/bin/pytest $(IN_PARALLEL) $(if $(filter $(NEWEST),$*),-n 3,-n 2 tests/airflow) $(REPORT)

$(CELLS:%=test-install-%): test-install-%: .venv/airflow-%/.ready
	.venv/airflow-$*/bin/pytest -q -m installs tests/test_install.py $(REPORT)

BENCH := PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.bench
bench: .venv/airflow-$(NEWEST)/.ready ## measure, into .bench: PARTS="decoder parse", SCALE=0.05 ROUNDS=1 for a short run
	$(BENCH) $(PARTS) $(if $(SCALE),--scale $(SCALE)) $(if $(ROUNDS),--rounds $(ROUNDS))

bench-page: .venv/airflow-$(NEWEST)/.ready ## take what is in .bench into docs/performance.md, its tables and plots
	$(BENCH).page

SOAK := PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m
soak: .venv/airflow-$(NEWEST)/.ready ## 100,000 calls with random faults; batches killed, interrupted, and of 100,000 rows
	$(SOAK) tests.soak
	$(SOAK) tests.batch.killing --kills 1000
	$(SOAK) tests.batch.killing --kills 1000 --store stored
	$(SOAK) tests.batch.killing --kills 1000 --store slow
	$(SOAK) tests.batch.interrupting --times 100 --rows 1000
	$(SOAK) tests.batch.many_rows --rows 100000
	$(SOAK) tests.batch.many_shards --shards 8 --rows 50000

mutants: .venv/airflow-$(NEWEST)/.ready ## change modules that decide about money and answers: does a test notice?
	PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.mutants --write

fuzz: .venv/airflow-$(NEWEST)/.ready ## any bytes, in any pieces, for an hour
	PYTHONPATH=. .venv/airflow-$(NEWEST)/bin/python -m tests.fuzz --seconds 3600

clean: ## remove what the targets above made
	rm -rf .venv .airflow .bench .coverage .reports docs/_build .hypothesis .mypy_cache .pytest_cache .ruff_cache

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit("$(PYTHON) is older than 3.11" if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv .venv/uv
	.venv/uv/bin/pip install --quiet --disable-pip-version-check uv

# The wheel is made from the source distribution, so that nothing is missing from that, either.
.venv/dist/.built: pyproject.toml hatch_build.py README.md LICENSE $(PACKAGE) | $(UV)
	$(UV) build --quiet --clear --out-dir $(@D) .
	@touch $@

# What the package needs, and what else the tests need.
.venv/airflow-%/.needed: tests/constraints/airflow-$$(call airflow_of,$$*).txt pyproject.toml | .venv/dist/.built
	$(UV) venv --quiet --allow-existing --python $(call python_of,$*) $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --constraints $< apache-airflow==$(call airflow_of,$*) "$$(ls .venv/dist/*.whl)[$(if $(filter $(NEWEST),$*),dev,test)]"
	@rm -f $(@D)/migrated.db
	@touch $@

# $(call with,PACKAGES): an Airflow with what the other tests do without.
define with
	@echo "Installs $(1) into $(@D)."
	$(UV) venv --quiet --allow-existing --python $(PYTHON) $(@D)
	$(UV) pip install --quiet --python $(@D)/bin/python --constraints $< apache-airflow==$* $(1) "$$(ls .venv/dist/*.whl)[test]"
	@rm -f $(@D)/migrated.db
	@touch $@
endef

.venv/celery-%/.needed: tests/constraints/airflow-%.txt pyproject.toml | .venv/dist/.built
	$(call with,apache-airflow-providers-celery redis)

.venv/browser-%/.needed: tests/constraints/airflow-%.txt pyproject.toml | .venv/dist/.built
	$(call with,playwright)

.venv/%/.ready: .venv/%/.needed .venv/dist/.built
	$(UV) pip install --quiet --python $(@D)/bin/python --no-deps --reinstall .venv/dist/*.whl
	@touch $@
