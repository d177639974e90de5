# Eddyline's tasks. Each sets up what it needs; nothing but Python, Java and Maven is expected on the machine,
# and tests/kafka/install.sh sees to the latter two.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:

# `make PYTHON=3.12 …` chooses one; by default uv finds a Python that pyproject.toml allows.
PYTHON ?=
UV := $(shell command -v uv 2>/dev/null || echo .venvs/uv/bin/uv)
RUN := .venv/bin/python -m

.PHONY: setup demo test test-slow check bench bench-stream bench-quality bench-drift bench-drift-oulad bench-swap bench-loop up lock

setup: .venv/.ready

$(UV):
	python3 -m venv .venvs/uv
	.venvs/uv/bin/python -m pip install --quiet uv

.venv/.ready: requirements.lock pyproject.toml | $(UV)
	$(UV) venv --quiet --allow-existing $(if $(PYTHON),--python $(PYTHON)) .venv
	$(UV) pip sync --quiet --python .venv --require-hashes requirements.lock
	$(UV) pip install --quiet --python .venv --no-deps --no-build-isolation --editable .
	touch $@

demo: setup ## the whole loop on the sample: a first model, the stream, drift, retraining, the swap, what it gained
	$(RUN) eddyline demo

check: setup ## ruff, mypy, import-linter
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	$(RUN) mypy
	.venv/bin/lint-imports

test: check ## all checks, then the tests against a real Kafka
	tests/kafka/install.sh
	$(RUN) pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder

test-slow: setup ## the few tests that take minutes
	$(RUN) pytest -m slow

bench: bench-stream bench-quality bench-drift bench-drift-oulad bench-swap bench-loop ## every benchmark

bench-stream: setup ## events a second a core against plain Faust, Quix Streams and Bytewax
	tests/kafka/install.sh
	$(RUN) tests.bench.stream

# `make bench-quality DATA=…` takes the OULAD tables of a folder; by default it is the sample.
DATA ?=
bench-quality: setup ## AUC and log-loss against boosting and logistic regression, frozen and monthly; replay's speed
	$(RUN) tests.bench.quality $(if $(DATA),--data $(DATA))

# `make bench-drift CSV=…` takes a CSV whose last column is a binary class; by default the stream is generated.
CSV ?=
bench-drift: setup ## false alarms, delays, kinds of drift, data faults, cost; against river and alibi-detect
	$(RUN) tests.bench.drift $(if $(CSV),--csv $(CSV))

bench-drift-oulad: setup ## a frozen model watched over the Open University's presentations, on a timeline
	$(RUN) tests.bench.drift_oulad $(if $(DATA),--data $(DATA))

bench-swap: setup ## 50 swaps of the model at 20,000 events a second, beside the same with a SavedModel in TensorFlow
	$(RUN) tests.bench.swap

bench-loop: setup ## the loop on real decisions, and drift of each kind through the whole system on a real Kafka
	tests/kafka/install.sh
	$(RUN) tests.bench.loop $(if $(DATA),--data $(DATA))

up: setup ## Kafka on this machine until Ctrl-C, for trying things out
	tests/kafka/install.sh
	$(RUN) tests.up

# uv.lock itself names the index each file came from; the exported form pins the same files by hash alone.
lock: | $(UV) ## pin every dependency anew
	$(UV) lock --quiet --upgrade
	$(UV) export --quiet --no-header --no-emit-project --extra cpu --extra alibi --extra ray --extra tune --group dev --output-file requirements.lock
	$(UV) export --quiet --no-header --no-emit-project --no-dev --extra gpu --output-file requirements-gpu.lock
	rm uv.lock
