# make help prints what there is.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test test-system faults mutation check bench format lock traceability messages screenshots clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(STAMP): deploy/lock/all.txt pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r deploy/lock/all.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --no-deps -e .
	touch $@

.PHONY: translations
translations: $(STAMP)
	@$(BIN)/pybabel --quiet compile --directory fleet/locale --domain django
	@$(BIN)/pybabel --quiet compile --directory fleet/client/locale --domain client
	@$(BIN)/pybabel --quiet compile --directory agent/locale --domain agent

demo: $(STAMP) translations  ## twelve simulated injectors and the portal on this machine
	@exec $(BIN)/python manage.py up --demo

test: $(STAMP) translations check  ## the checks, then every test that needs Python alone
	$(BIN)/python -m pytest -m "not system and not faults"

test-system: $(STAMP) translations  ## tests against real programs; installs Debian packages, as root
	.ci/packages
	$(BIN)/python -m pytest -m system

faults: $(STAMP) translations  ## what must not lose anything: kills, full disks, bad networks; as root
	$(BIN)/python -m tests.faults

check: $(STAMP) translations  ## format, lint, types, import contracts, migrations, translations, vendored files
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files 'templates/**/*.html' 'templates/*.html' | xargs -r $(BIN)/djade --check --target-version 5.2
	$(BIN)/python manage.py check --fail-level WARNING
	$(BIN)/python manage.py makemigrations --check --dry-run
	$(BIN)/python manage.py vendor --check
	$(BIN)/python manage.py messages --check
	$(BIN)/python -m tests.traceability --check

mutation: $(STAMP) translations  ## take each defence away in a copy, and see a test fail (minutes)
	$(BIN)/python -m tests.mutation

bench: $(STAMP) translations  ## speed and memory, each beside its peer in the same run
	$(BIN)/python -m tests.bench

format: $(STAMP)  ## put the code in its format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	git ls-files 'templates/**/*.html' 'templates/*.html' | xargs -r $(BIN)/djade --target-version 5.2

screenshots: $(STAMP) translations  ## every page, light and dark, English and French, into var/screenshots
	$(BIN)/python -m tests.screenshots

messages: $(STAMP)  ## refresh the translation catalogues from the source (needs gettext)
	$(BIN)/python manage.py messages

traceability: $(STAMP)  ## which test proves which requirement
	$(BIN)/python -m tests.traceability

lock:  ## resolve the dependencies again, with hashes (needs uv)
	.ci/lock

clean:  ## remove the virtual environment and the demo's data
	rm -rf $(VENV) var build *.egg-info
