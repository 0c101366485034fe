# Two commands: `make demo` opens the app, `make test` proves it. Everything lands in .venv.

PYTHON ?= python3.11
VENV := .venv
LABEL_STUDIO := .venv-label-studio
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)
# Debian keeps PostgreSQL's own programs off the PATH.
INITDB := $(shell command -v initdb || ls /usr/lib/postgresql/*/bin/initdb 2>/dev/null | tail -1)
CHROMIUM := $(shell command -v chromium || command -v chromium-browser || command -v google-chrome)

export GRADIO_ANALYTICS_ENABLED := False
export YOLO_AUTOINSTALL := false

.PHONY: demo test check label-studio browser postgres clean help

help:
	@echo "make demo          build .venv and open the app at http://127.0.0.1:7860"
	@echo "make test          build what the tests need and run them all"
	@echo "make check         formatting, lint and types"
	@echo "make label-studio  start a local Label Studio prepared for Rollmark"

# A Debian without python3-venv has an ensurepip that refuses; the package brings it.
$(BIN)/python:
	@command -v $(PYTHON) >/dev/null || { echo "Rollmark needs $(PYTHON); set PYTHON=..."; exit 1; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq $(PYTHON)-venv && $(PYTHON) -m venv $(VENV); }

# opencv-python and its headless twin write the same cv2/ folder; the headless one goes in last
# because it needs no libGL.
$(VENV)/.runtime: requirements.txt | $(BIN)/python
	$(PIP) -r requirements.txt
	$(PIP) --force-reinstall --no-deps $$(grep -m1 '^opencv-python-headless==' requirements.txt)
	@touch $@

$(VENV)/.dev: requirements-dev.txt $(VENV)/.runtime
	$(PIP) -r requirements-dev.txt
	@touch $@

# Label Studio pins what ours must not carry, so it has an environment of its own.
$(LABEL_STUDIO)/.installed: requirements-label-studio.txt | $(BIN)/python
	$(PYTHON) -m venv $(LABEL_STUDIO)
	$(LABEL_STUDIO)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-label-studio.txt
	@touch $@

demo: $(VENV)/.runtime
	$(BIN)/python app.py

browser:
ifeq ($(CHROMIUM),)
	$(SUDO) apt-get update -qq
	$(SUDO) apt-get install -y -qq chromium
endif

postgres:
ifeq ($(INITDB),)
	$(SUDO) apt-get update -qq
	$(SUDO) apt-get install -y -qq postgresql
endif

label-studio: $(VENV)/.runtime $(LABEL_STUDIO)/.installed
	$(BIN)/python -m active_learning.serve_label_studio

test: $(VENV)/.dev $(LABEL_STUDIO)/.installed browser postgres
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile $(PYTEST_ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) $(LABEL_STUDIO)
