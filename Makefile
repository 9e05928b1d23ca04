# make train, make test and make evaluate each work first on a machine with nothing but Python and make.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: train evaluate test demo
.DELETE_ON_ERROR:

train: .venv/installed
	$(BIN)/python ClassifyTask_train.py
	$(BIN)/python ClassifyTask_test.py

evaluate: .venv/installed
	$(BIN)/python ClassifyTask_test.py

test: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pytest -n 2 --dist loadfile

demo: .venv/installed
	$(BIN)/python -m tools.page

.venv/installed: requirements.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -r requirements.txt
	touch $@

.venv/installed-dev: requirements-dev.txt .venv/installed
	$(BIN)/pip install -q -r requirements-dev.txt
	touch $@
