# Everything here works on a machine with Python 3.10 or newer, pip and make: what a target needs is installed into
# $(VENV) once, and again when setup.py changes.
#
#   make PYTHON=python3.12 test    builds the environment with another Python
#   make VENV=../environment test  keeps it elsewhere (no spaces)
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make test
#                                  spares a machine without an NVIDIA GPU some gigabytes of CUDA libraries

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WORKERS ?= 2
CORES := $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1)

# Tests read nothing from the network; each worker computes on one core.
PYTEST = HF_HUB_OFFLINE=1 OMP_NUM_THREADS=1 "$(BIN)/python" -m pytest -n $(WORKERS)

# accelerate gives a CPU process a single thread unless it is told otherwise. Threads that wait shall sleep: on a machine
# that others use too, they would take the cores from those that work.
LAUNCH = OMP_WAIT_POLICY=passive "$(BIN)/python" -m accelerate.commands.launch --num_processes 1 --num_machines 1 --mixed_precision no \
	--dynamo_backend no --num_cpu_threads_per_process $(CORES)

.PHONY: help demo test test-parity test-slow lint format bench docs clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1: /p' Makefile

demo: $(READY)  ## train a small model on generated scenes, evaluate it and draw the result
	$(LAUNCH) scripts/train.py --recipe shapes/demo --output_dir outputs/demo --overwrite_output_dir

test: $(READY)  ## the default tests: on the CPU, offline, under 5 minutes
	$(PYTEST)

test-parity: $(READY)  ## agreement with the official implementation
	$(PYTEST) -m parity

test-slow: $(READY)  ## the tests that take longer, such as training runs
	$(PYTEST) -m slow

lint: $(READY)  ## check style and formatting
	"$(BIN)/ruff" check .
	"$(BIN)/ruff" format --check .

format: $(READY)  ## apply them
	"$(BIN)/ruff" check --fix .
	"$(BIN)/ruff" format .

bench: $(READY)  ## parameters and multiply-adds of every recipe, beside the paper's
	"$(BIN)/python" scripts/benchmark.py complexity

# Nuclei in COCO's panoptic format, `train/` and `val/`, for the pictures of real images: make docs NUCLEI=data
NUCLEI ?=

docs: $(READY) outputs/demo/best $(if $(NUCLEI),outputs/nuclei/best)  ## draw the pictures of README and docs/ and run the notebooks anew
	"$(BIN)/python" docs/draw.py
	"$(BIN)/python" scripts/inspect_dataset.py --source shapes --output_dir outputs/docs/shapes
	"$(BIN)/python" docs/side_by_side.py --height 670 docs/images/inspect_shapes.png outputs/docs/shapes/contact_sheet.png
	cp outputs/docs/shapes/histogram.png docs/images/inspect_shapes_histogram.png
	cp outputs/demo/validation.png docs/images/demo.png
	"$(BIN)/python" docs/screenshot.py outputs/demo/best docs/images/web_demo.png
	$(if $(NUCLEI),$(NUCLEI_PICTURES),@echo "nuclei*.png stay as they are: no NUCLEI=FOLDER")
	HF_HUB_OFFLINE=1 "$(BIN)/jupyter-execute" --inplace notebooks/*.ipynb

define NUCLEI_PICTURES
"$(BIN)/python" scripts/inspect_dataset.py --source panoptic_folder --train_path "$(NUCLEI)/train" --output_dir outputs/docs/nuclei
	"$(BIN)/python" docs/side_by_side.py --height 670 docs/images/inspect_nuclei.png outputs/docs/nuclei/contact_sheet.png
	cp outputs/docs/nuclei/histogram.png docs/images/inspect_nuclei_histogram.png
	"$(BIN)/python" scripts/predict.py --model outputs/nuclei/best --output_dir outputs/docs/answers --overwrite "$(NUCLEI)/val/images"
	"$(BIN)/python" docs/side_by_side.py docs/images/nuclei.png $$(ls outputs/docs/answers/*.png | awk 'NR % 10 == 1')
endef

outputs/demo/best:
	$(MAKE) demo

# 15 minutes
outputs/nuclei/best: | $(READY)
	$(LAUNCH) scripts/train.py --recipe nuclei/maskformer_efficientnet_lite0 --seed 0 --output_dir outputs/nuclei \
		--train_path "$(NUCLEI)/train" --validation_path "$(NUCLEI)/val"

clean:  ## remove caches and builds; the environment and outputs/ stay
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -not -path './.git/*' -prune -exec rm -rf {} +

# --no-compile: Python compiles what is imported, when it is; pip would compile every file of every library.
$(READY): setup.py
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { \
		echo "Python 3.10 or newer is needed; $(PYTHON) is: $$("$(PYTHON)" --version 2>&1)." >&2; \
		echo "Name another one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@echo "Setting up $(VENV): PyTorch and the other libraries are downloaded once (up to some gigabytes, minutes)."
	@"$(PYTHON)" -m venv "$(VENV)" || { \
		echo "Could not make a virtual environment; on Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	"$(BIN)/python" -m pip install --quiet --disable-pip-version-check --no-compile -e ".[dev,demo]"
	@touch "$@"
