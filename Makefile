# make demo    the demo project on http://127.0.0.1:$(PORT)/
# make test    the whole suite on SQLite, then on PostgreSQL; ARGS="-k lease -x" goes to pytest. What speaks to the database
#              is tested with both, what stands above that with SQLite, and faults with PostgreSQL: OUTER=postgres turns
#              these two round.
# Also: lint, types, layers, check-migrations, clean. PYTHON=python3.12 and VENV=folder choose the interpreter and where to install.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 8000
ARGS ?=
OUTER ?= sqlite
JOBS ?= 5

BIN := $(VENV)/bin
# Many tests wait for processes that they have started, so more of them at once than there are cores take less time.
PYTEST := $(BIN)/python -m pytest --numprocesses=$(JOBS) --dist=loadfile --no-loadscope-reorder
# An interpreter manager may leave a `uv` on PATH that only says where uv is, so it has to run to count.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv)
ifdef UV
  export UV_PYTHON_DOWNLOADS := never
  # uv would look the name up in its own way; the absolute path leaves it no choice.
  MAKE_VENV = uv venv --quiet --allow-existing --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" "$(VENV)"
  # Compiled once here, as pip does: tests start many processes, and where PYTHONDONTWRITEBYTECODE is set each would compile.
  INSTALL = uv pip install --quiet --compile-bytecode --python "$(BIN)/python"
else
  MAKE_VENV = $(PYTHON) -m venv "$(VENV)"
  INSTALL = "$(BIN)/python" -m pip install --quiet --disable-pip-version-check
endif

.PHONY: demo test lint types layers check-migrations clean

demo: $(VENV)/.installed
	$(BIN)/python manage.py demo --port $(PORT) $(ARGS)

test: $(VENV)/.installed-dev
	$(PYTEST) --database=sqlite --outer=$(OUTER) $(ARGS)
	$(PYTEST) --database=postgres --outer=$(OUTER) $(ARGS)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	$(BIN)/python -m mypy

layers: $(VENV)/.installed-dev
	$(BIN)/lint-imports

# In memory: the check asks the database which migrations it has, which would leave an empty demo database behind.
check-migrations: $(VENV)/.installed-dev
	DATABASE_URL=sqlite://:memory: $(BIN)/python manage.py makemigrations --check --dry-run

# The stamps are written last, so that an interrupted step is done again. They are older than a changed requirements file.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "This needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1 | tail -n 1)." >&2; \
	  echo "Name another one, for example: make $(or $(MAKECMDGOALS),demo) PYTHON=python3.12" >&2; exit 1; }
	@echo "Making the environment $(VENV)"
	@$(MAKE_VENV)
	@touch $@

$(VENV)/.installed: requirements.txt | $(VENV)/.made
	@echo "Installing requirements.txt"
	@$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/.installed-dev: requirements-dev.txt requirements.txt | $(VENV)/.made
	@echo "Installing requirements-dev.txt"
	@$(INSTALL) -r requirements-dev.txt
	@touch $@ $(VENV)/.installed

# Only what the rules above have made; the demo's database stays.
clean:
	if [ -f "$(VENV)/.made" ]; then rm -rf "$(VENV)"; fi
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache .hypothesis .coverage
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
