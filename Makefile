# Python >= 3.11 and make are all that is needed; every target makes what it needs.
#   make quickstart   install, train, measure, write pictures, print a table (runs/quickstart)
#   make generate     install, train a tokenizer of digits, tokenize, train a generator, draw, judge (runs/generate)
#   make test         install the development set, then ruff, mypy and the tests
#   make test-all     the same with the slow matrices
#   make test-gpu     what only a GPU can show (needs one, and a torch that sees it)
#   make lint         ruff and mypy only
#   make docs         the documentation site in docs/_build/html, without a warning
#   make linkcheck    asks every external link of the site; needs a network
# PYTHON=python3.12 picks an interpreter; PIP_ARGS='--index-url ...' reaches every pip call.

PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check -q -c constraints.txt $(PIP_ARGS)
RUN := runs/quickstart
DIGITS := runs/generate
# one thread a worker: two workers that use two threads each would fight for two cores
PYTEST := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q -n 2 --doctest-modules --doctest-glob='*.md' \
	--cov=smalti --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=90 tests smalti docs

SPHINX := OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 $(BIN)/python -m sphinx -q

.DELETE_ON_ERROR:
.PHONY: quickstart generate test test-all test-gpu lint docs linkcheck clean

quickstart: $(VENV)/.demo-installed
	@n=1; while [ -e $(RUN)-$$n ]; do n=$$((n + 1)); done; \
	if [ -e $(RUN) ]; then mv $(RUN) $(RUN)-$$n && echo "the earlier run is now $(RUN)-$$n"; fi
	$(BIN)/smalti train quickstart --out $(RUN)

generate: $(VENV)/.demo-installed
	@n=1; while [ -e $(DIGITS)-$$n ]; do n=$$((n + 1)); done; \
	if [ -e $(DIGITS) ]; then mv $(DIGITS) $(DIGITS)-$$n && echo "the earlier ones are now in $(DIGITS)-$$n"; fi
	$(BIN)/smalti train digits-tokenizer --out $(DIGITS)/tokenizer
	$(BIN)/smalti tokenize $(DIGITS)/tokenizer --data '{type: digits}' --out $(DIGITS)/tokens --batch-size 100
	$(BIN)/smalti train far-digits --data $(DIGITS)/tokens --out $(DIGITS)/far
	$(BIN)/smalti sample $(DIGITS)/far --out $(DIGITS)/digits.png --count 100 --guidance 1.5
	$(BIN)/python -m benchmarks.generated_digits $(DIGITS)/far

test: lint
	$(PYTEST)

test-all: lint
	$(PYTEST) --slow

test-gpu: $(VENV)/.dev-installed
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -q --device cuda -m gpu tests

lint: $(VENV)/.dev-installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.docs-installed
	$(SPHINX) -W --keep-going -d docs/_build/doctrees docs docs/_build/html

linkcheck: $(VENV)/.docs-installed
	$(SPHINX) -b linkcheck docs docs/_build/linkcheck

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	{ echo "smalti needs Python 3.11 or newer, $(PYTHON) is `$(PYTHON) --version 2>&1`: make PYTHON=..." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.demo-installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) -e '.[demo,report]'
	@touch $@

$(VENV)/.dev-installed: $(VENV)/.created pyproject.toml constraints.txt
	$(PIP) -e '.[dev]'
	@touch $@ $(VENV)/.demo-installed

$(VENV)/.docs-installed: $(VENV)/.dev-installed
	$(PIP) -e '.[docs]'
	@touch $@

clean:
	rm -rf $(VENV) docs/_build docs/reference .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
