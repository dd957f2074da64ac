# make install | demo | test | test-all | lint | bench | docs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing here needs a compiler, a GPU or the network beyond the package indexes.
export HF_HUB_OFFLINE := 1
ifeq ($(shell command -v nvidia-smi),)
export DS_ACCELERATOR ?= cpu
endif

.PHONY: install demo test test-all lint bench slurm docs

install: $(VENV)/installed

# torch goes first and alone: a resolver that meets it later, through another package, picks a CUDA build.
$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable .[test,lint]
	touch $@

data/digits/dataset.json: | $(VENV)/installed
	$(BIN)/mmpretrain shards build digits

demo: install data/digits/dataset.json
	CUDA_VISIBLE_DEVICES= $(BIN)/python launcher/submit.py --cluster local method=m3col experiment=digits run.name=demo
	$(BIN)/python -m mmpretrain.summary.demo runs/demo

# Slurm comes from Debian's packages; where that cannot be done its tests say why they are skipped.
slurm:
	@command -v slurmctld >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || slurm/dev_cluster.sh install \
	  || echo "Slurm could not be installed: its tests will be skipped"

test: lint slurm
	$(BIN)/python -m pytest

test-all: install slurm
	$(BIN)/python -m pytest -m "slow or not slow"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install data/digits/dataset.json
	$(BIN)/python -m benchmarks.contrastive --quick
	$(BIN)/python -m benchmarks.wire --quick
	$(BIN)/python -m benchmarks.loads --quick
	$(BIN)/python -m benchmarks.gpu --quick
	$(BIN)/python -m benchmarks.stream --quick
	$(BIN)/python -m benchmarks.methods --quick

docs: install
	$(BIN)/python -m launcher.config_page > docs/config.md
