# make install | demo | quick | test | test-all | gpu | lint | format | bench | docs | site
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Nothing here needs a compiler, a GPU or the network beyond the package indexes.
export HF_HUB_OFFLINE := 1
ifeq ($(shell command -v nvidia-smi),)
export DS_ACCELERATOR ?= cpu
endif

# Runs shell lines and says how long they took together.
TIMED := @.ci/timed

# Tests that wait, that start processes and that compute overlap well: three workers keep two cores busy.
WORKERS ?= 3
# Hundreds of processes start: they read what an earlier one has compiled, whatever the shell says.
PYTEST = env -u PYTHONDONTWRITEBYTECODE $(BIN)/python -m pytest --durations=25 --numprocesses=$(WORKERS)

.PHONY: install demo quick test test-all gpu lint format bench slurm browser docs site

install: $(VENV)/installed

# torch goes first and alone: a resolver that meets it later, through another package, picks a CUDA build.
$(VENV)/installed: pyproject.toml constraints.txt
	$(TIMED) install '$(PYTHON) -m venv $(VENV)' \
	  '$(BIN)/pip install --quiet --constraint constraints.txt torch' \
	  '$(BIN)/pip install --quiet --constraint constraints.txt --editable .[test,lint,data,audio,docs]' \
	  'touch $@'

data/digits/dataset.json: | $(VENV)/installed
	$(BIN)/mmpretrain shards build digits

demo: install data/digits/dataset.json
	CUDA_VISIBLE_DEVICES= $(BIN)/python launcher/submit.py --cluster local method=m3col experiment=digits run.name=demo
	$(BIN)/python -m mmpretrain.summary.demo runs/demo

# Slurm comes from Debian's packages; where that cannot be done its tests say why they are skipped.
slurm:
	@command -v slurmctld >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || .ci/timed slurm 'slurm/dev_cluster.sh install' \
	  || echo "Slurm could not be installed: its tests will be skipped"

# A headless browser looks at pages.
browser:
	@command -v chromium >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] \
	  || .ci/timed browser 'apt-get update -q; DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends chromium fonts-dejavu-core' \
	  || echo "Chromium could not be installed: tests of pages will be skipped"

# What needs neither processes nor Slurm: a check while you work, not before you commit.
quick: WORKERS := 2
quick: install
	$(TIMED) quick '$(PYTEST) -m "not slow and not slurm and not processes"'

test: lint site slurm browser
	$(TIMED) tests '$(PYTEST)'

test-all: install slurm browser
	$(TIMED) tests '$(PYTEST) -m "slow or not slow"'

# What only a CUDA device can show, and its tables in a file; elsewhere it says why it does nothing.
gpu: install
	$(TIMED) gpu '$(BIN)/python -m tests.gpu --out runs/gpu.md'

lint: install
	$(TIMED) lint '$(BIN)/ruff check .' '$(BIN)/ruff format --check .' '$(BIN)/lint-imports --no-logo' '$(BIN)/mypy'

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: install data/digits/dataset.json
	$(BIN)/python -m benchmarks.contrastive --quick
	$(BIN)/python -m benchmarks.wire --quick
	$(BIN)/python -m benchmarks.loads --quick
	$(BIN)/python -m benchmarks.gpu --quick
	$(BIN)/python -m benchmarks.stream --quick
	$(BIN)/python -m benchmarks.index --quick
	$(BIN)/python -m benchmarks.methods --quick
	$(BIN)/python -m benchmarks.padding --quick
	$(BIN)/python -m benchmarks.checkpointing --quick

docs: install
	$(BIN)/python -m launcher.config_page > docs/config.md
	$(BIN)/python docs/draw_floors.py

# The documentation as a site, in site/; a link that leads nowhere is an error.
site: install
	$(TIMED) site 'NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet'
