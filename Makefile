# Everything on a fresh machine with Python 3.10 or newer and a network:
#   make demo   speech to text: transcript of examples/sample.wav by the bundled model
#   make test   ruff, mypy and the offline tests
#   make test-page   the server's page in a browser
#   make test-ray   labelling in several processes, with Ray
#   make bench DATA=path/to/speech   speed, memory and errors of all models and other programs
#   make test-wheel   wheel and sdist, installed by pip and uv in empty environments, run offline
# Each makes its own .venv first; a second run finds it there. Works with GNU make 3.81 and 4.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt
PACKAGING := .cache/packaging
TEACHER := .cache/teacher/whisper-base-ct2
MODEL := .cache/models/whisper-base

# A folder of speech with transcripts, and one with the recordings that other programs test with, for
# `make test-real DATA=... PEER_AUDIO=...`; see CONTRIBUTING.md.
DATA ?=
PEER_AUDIO ?=
# A model folder for `make bench`; the bundled model if there is none.
STUDENT ?=
# A wheel for `make test-wheel` that is built already.
WHEEL ?=

.PHONY: demo test test-real test-page test-ray bench lint dist test-wheel formula clean

demo: $(VENV)/.demo
	$(BIN)/baldwhisper transcribe examples/sample.wav
	@echo "Try your own recording: $(BIN)/baldwhisper transcribe talk.m4a"

test: lint
	$(BIN)/python -m pytest

test-real: $(VENV)/.test $(MODEL)/config.json
	BALDWHISPER_TEACHER=$(TEACHER) BALDWHISPER_MODEL=$(MODEL) BALDWHISPER_DATA="$(DATA)" \
		BALDWHISPER_PEER_AUDIO="$(PEER_AUDIO)" $(BIN)/python -m pytest -m real

# The page of the server in a browser: Chromium or Chrome of this machine, or BALDWHISPER_BROWSER
test-page: $(VENV)/.page
	BALDWHISPER_BROWSER="$$($(BIN)/python scripts/find_browser.py)" \
		$(BIN)/python -m pytest -m page tests/page

test-ray: $(VENV)/.ray
	$(BIN)/python -m pytest -m ray tests/convert/labelling

bench: $(VENV)/.bench $(MODEL)/config.json
	$(BIN)/python -m benchmarks.run_all --checkpoint $(TEACHER) --teacher $(MODEL) \
		--data "$(DATA)" $(if $(STUDENT),--student "$(STUDENT)")

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

dist: $(PACKAGING)/.done
	$(PACKAGING)/bin/python scripts/build_wheel.py dist

test-wheel: $(if $(WHEEL),$(PACKAGING)/.done,dist)
	$(PACKAGING)/bin/python scripts/test_wheel.py $(or $(WHEEL),dist/*.whl)

# after a change of constraints.txt
formula: $(PACKAGING)/.done
	$(PACKAGING)/bin/python scripts/make_formula.py

clean:
	rm -rf $(VENV) .cache build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define CHECK_PYTHON
@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
	echo "baldwhisper-mlx needs Python 3.10 or newer, but $(PYTHON) is" \
		"$$($(PYTHON) --version 2>&1 || echo missing);" \
		"name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
endef

# The marker of the `mkl` extra keeps it to Linux on x86-64.
$(VENV)/.demo: constraints.txt pyproject.toml
	$(CHECK_PYTHON)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable '.[mkl]'
	@touch $@

# torch has a step of its own: with the pinned version installed first, nothing that depends on
# it can bring another build.
$(VENV)/.convert: $(VENV)/.demo
	$(INSTALL) torch
	$(INSTALL) --editable '.[convert,mkl]'
	@touch $@

$(VENV)/.test: $(VENV)/.convert tests/parity/requirements.txt
	$(INSTALL) --editable '.[convert,search,evaluate,server,mkl,test,dev]'
	$(INSTALL) --no-deps --requirement tests/parity/requirements.txt
	@touch $@

# openai-whisper and mlx-whisper are there from the tests, without dependencies that they do not use
$(VENV)/.bench: $(VENV)/.test
	$(INSTALL) faster-whisper pywhispercpp
	@touch $@

$(VENV)/.ray: $(VENV)/.test
	$(INSTALL) --editable '.[ray]'
	@touch $@

# Debian's Chromium if no browser is there, else the one that Playwright brings
$(VENV)/.page: $(VENV)/.test tests/page/requirements.txt
	$(INSTALL) --requirement tests/page/requirements.txt
	@$(BIN)/python scripts/find_browser.py >/dev/null || apt-get install -y chromium || \
		$(BIN)/python -m playwright install --with-deps chromium
	@touch $@

$(TEACHER)/model.bin: | $(VENV)/.convert
	$(BIN)/python scripts/get_teacher.py --output $(TEACHER)

# export writes to a temporary name and renames, so a config.json means a whole model; benchmarks and
# parity tests run it in full context, as other programs do
$(MODEL)/config.json: | $(VENV)/.convert $(TEACHER)/model.bin
	$(BIN)/baldwhisper-convert export $(TEACHER) $(MODEL) --dtype float16 --no-padding

# build, twine and uv by themselves: the project neither needs them nor is in their way
$(PACKAGING)/.done: packaging/requirements.txt
	$(CHECK_PYTHON)
	$(PYTHON) -m venv --clear $(PACKAGING)
	$(PACKAGING)/bin/python -m pip --disable-pip-version-check install --quiet \
		--requirement packaging/requirements.txt
	@touch $@
