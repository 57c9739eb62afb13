# make demo    the whole paper on the bundled Fashion-MNIST at 14 × 14: figures, verdicts, report
# make test    format, lint, types and the quick tests
# make help    the rest

PYTHON ?= python3
BIN := .venv/bin
SETUP := .venv/.installed
SNAKEMAKE := $(BIN)/snakemake --cores all --keep-going
CONFIGS := $(wildcard config/*.yaml)
SOURCES := workflow/scripts workflow/plugins tests benchmarks
SMK := Snakefile workflow/rules/*.smk
# Extra arguments of pytest, such as PYTEST="-k knn".
PYTEST ?=

.DEFAULT_GOAL := help
.PHONY: help setup demo paper test test-all lint format docs bench gpu-check clean

help:
	@echo 'make setup     install everything into .venv'
	@echo 'make demo      the whole paper on bundled images (2 minutes on 2 cores)'
	@echo 'make paper     the paper itself: downloads the data sets, wants a GPU'
	@echo 'make test      format, lint, types, and the quick tests'
	@echo 'make test-all  make test, and the long tests: every kill, every fault, a real SLURM'
	@echo 'make gpu-check whether this machine'"'"'s GPU does what the pipeline needs (2 minutes, 8 GB)'
	@echo 'make bench     the benchmarks behind the tables in docs/performance.md'
	@echo 'make docs      write docs/configuration.md from the schema'
	@echo 'make format    format all code'

setup: $(SETUP)

$(SETUP): envs/pipeline.txt envs/slurm.txt envs/timm.txt envs/dev.txt envs/constraints.txt workflow/plugins/register.py
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; run make with PYTHON=python3.11")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --requirement envs/dev.txt --constraint envs/constraints.txt
	$(BIN)/python workflow/plugins/register.py
	touch $@

demo: $(SETUP)
	$(SNAKEMAKE) --configfile config/demo.yaml
	@$(BIN)/python workflow/scripts/results.py verdicts results/demo

paper: $(SETUP)
	$(SNAKEMAKE)
	@$(BIN)/python workflow/scripts/results.py verdicts results/paper

lint: $(SETUP)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/snakefmt --check $(SMK)
	$(BIN)/snakemake --lint --configfile config/demo.yaml
	$(BIN)/mypy workflow/scripts workflow/plugins

format: $(SETUP)
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/snakefmt $(SMK)

docs: $(SETUP)
	$(BIN)/python workflow/scripts/configuration_table.py > docs/configuration.md

test: lint
	$(BIN)/python -m pytest -m 'not slow' --numprocesses 2 --dist loadgroup $(PYTEST)

test-all: test
	$(BIN)/python -m pytest -m slow --numprocesses 2 --dist loadgroup $(PYTEST)

gpu-check: $(SETUP)
	@$(BIN)/python workflow/scripts/gpu_check.py

bench: $(SETUP)
	$(SNAKEMAKE) --configfile benchmarks/real_features.yaml --until features
	for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

# Snakemake's records stay: other results than the demo's may lie here.
clean:
	rm -rf .venv .snakemake/log results/demo
