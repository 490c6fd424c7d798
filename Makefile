# make demo        set up, build the data, train, evaluate, draw, print the table
# make demo-seeds  the same with three seeds: mean and spread
# make demo-base   train the detector that the demo starts from once more
# make test        set up, then the tests
# make test-onedl  the fast tests with the onedl forks of mmengine, mmcv and
#                  mmdet, in an environment of their own, ONEDL_VENV
# make docs        the documentation, in docs/_build/html
# make lint        the style of the code, and that it is documented
# make setup       only the environment
#
# PYTHON=  the CPython (3.10-3.12) that makes the environment
# TORCH=   the version of torch
# VENV=    where the environment is; empty: use PYTHON's own as it is and
#          install nothing (see "An environment of your own" in README.md)

TORCH ?= 2.13.0
VENV ?= .venv
ONEDL_VENV ?= .venv-onedl
PYTHON ?= $(shell for python in python3.11 python3.12 python3.10 python3; do \
	$$python -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] < (3, 13))' \
	2>/dev/null && echo $$python && break; done)
MMCV := 2.1.0

export PYTHONPATH := $(CURDIR)$(if $(PYTHONPATH),:$(PYTHONPATH))
export PIP_DISABLE_PIP_VERSION_CHECK := 1

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo demo-seeds demo-base test test-onedl docs lint format clean

ifeq ($(strip $(VENV)),)
ENV_PYTHON := $(PYTHON)
READY :=
else
ENV_PYTHON := $(abspath $(VENV))/bin/python
STAMPS := $(abspath $(VENV))/.steps
BUILD := $(abspath $(VENV))/.build
WITH_TORCH := $(STAMPS)/torch-$(TORCH)
READY := $(STAMPS)/package
WITH_DOCS := $(STAMPS)/docs
endif
# Isolated: pip is not to see the traces of a build in this folder.
PIP := $(ENV_PYTHON) -I -m pip
PIP_INSTALL := $(PIP) install -c requirements/constraints.txt

# Operators that were built without CUDA can not be called on a GPU.
CPU_ONLY := $(BUILD)/torch-$(TORCH)/cpu-only
HIDE_GPU = $$([ -e '$(CPU_ONLY)' ] && echo env CUDA_VISIBLE_DEVICES=)

demo: setup
	$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --work-dir work_dirs/demo

demo-seeds: setup
	$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --seeds 0 1 2 --work-dir work_dirs/demo_seeds

demo-base: setup
	$(HIDE_GPU) $(ENV_PYTHON) tools/demo.py --base --work-dir work_dirs/demo_base

test: setup
	$(ENV_PYTHON) -m pytest -n 2 --dist loadfile --no-loadscope-reorder

docs: setup $(WITH_DOCS)
	$(ENV_PYTHON) tools/misc/model_zoo.py
	$(ENV_PYTHON) -m sphinx -W --keep-going -q docs docs/_build/html
	@echo docs/_build/html/index.html

# No wheels of onedl-mmcv are on PyPI: its operators are compiled, for 5 to 12
# minutes on 2 cores. pip keeps the wheel.
ONEDL_PYTHON := $(abspath $(ONEDL_VENV))/bin/python
ONEDL_PIP := $(ONEDL_PYTHON) -I -m pip
FAST_TESTS := tests/test_datasets tests/test_engine tests/test_evaluation \
	tests/test_models tests/test_packaging/test_checkpoint_safety.py \
	tests/test_packaging/test_stack.py tests/test_registry.py \
	tests/test_visualization

test-onedl:
	@[ -x $(ONEDL_PYTHON) ] || $(PYTHON) -m venv $(ONEDL_VENV)
	$(ONEDL_PIP) install -c requirements/constraints.txt \
		-r requirements/build.txt
	$(ONEDL_PIP) install -c requirements/constraints.txt \
		torch==$(TORCH) torchvision -r requirements/runtime.txt \
		-r requirements/tests.txt
	$(ONEDL_PIP) install --no-deps --no-build-isolation \
		-r requirements/onedl.txt
	MMCV_WITH_OPS=1 CFLAGS='-g0 -O1' $(ONEDL_PIP) install --no-deps \
		--no-build-isolation onedl-mmcv
	$(ONEDL_PYTHON) -m pytest $(FAST_TESTS)

lint: setup $(WITH_DOCS)
	$(ENV_PYTHON) -m ruff check .
	$(ENV_PYTHON) -m interrogate mmdet_clim
	$(ENV_PYTHON) -m yapf --diff --recursive --parallel \
		mmdet_clim configs tools benchmarks tests

format: setup
	$(ENV_PYTHON) -m ruff check --fix .
	$(ENV_PYTHON) -m yapf --in-place --recursive --parallel \
		mmdet_clim configs tools benchmarks tests

setup: $(READY)
	@$(ENV_PYTHON) -c 'import mmdet_clim'

clean:
	rm -rf build dist mmdet_clim.egg-info

ifneq ($(strip $(VENV)),)

# Each step leaves a stamp when it is done, so an interrupted set-up goes on
# with the step it was in. pip leaves half of a package when it is killed and
# takes it for installed: those halves are dropped first.
define step
	@echo '== set-up: $(1)'
	@mkdir -p $(STAMPS)
	@if [ -e $(STAMPS)/unfinished -a -x $(ENV_PYTHON) ]; then \
		$(ENV_PYTHON) tools/misc/drop_unfinished_installs.py; fi
	@touch $(STAMPS)/unfinished
endef
define done
	@touch $@
	@rm -f $(STAMPS)/unfinished
endef

$(STAMPS)/venv:
	@if [ -z '$(PYTHON)' ]; then \
		echo 'CPython 3.10-3.12 is needed: make ... PYTHON=/path/to/python'; \
		exit 1; fi
	@if [ -x $(ENV_PYTHON) ]; then \
		$(ENV_PYTHON) tools/misc/check_own_environment.py $(PYTHON); fi
	$(call step,an environment in $(VENV))
	$(PYTHON) -m venv $(VENV)
	$(done)

$(STAMPS)/build-tools: $(STAMPS)/venv requirements/build.txt
	$(call step,build tools)
	$(PIP_INSTALL) -r requirements/build.txt
	$(done)

$(WITH_TORCH): $(STAMPS)/build-tools
	$(call step,torch $(TORCH) and the torchvision that fits it)
	$(PIP_INSTALL) torch==$(TORCH) torchvision
	@rm -f $(STAMPS)/torch-*
	$(done)

$(STAMPS)/requirements: $(WITH_TORCH) requirements/runtime.txt \
		requirements/tests.txt requirements/constraints.txt
	$(call step,requirements)
	$(PIP_INSTALL) torch==$(TORCH) -r requirements/runtime.txt \
		-r requirements/tests.txt
	$(done)

$(STAMPS)/openmmlab: $(STAMPS)/requirements requirements/openmmlab.txt
	$(call step,mmengine and mmdet and mim)
	$(PIP_INSTALL) --no-deps -r requirements/openmmlab.txt
	$(done)

# It depends on torch: another version of that needs another build.
$(STAMPS)/mmcv: $(STAMPS)/openmmlab
	$(call step,mmcv $(MMCV) with its operators)
	tools/misc/install_mmcv.sh $(ENV_PYTHON) $(MMCV) $(BUILD)/torch-$(TORCH)
	$(done)

PACKAGE_FILES := $(shell git ls-files mmdet_clim configs tools 2>/dev/null) \
	setup.cfg pyproject.toml model-index.yml
# Not editable: mim and `pkg::` configs do not find an editable install.
$(STAMPS)/package: $(STAMPS)/mmcv $(wildcard $(PACKAGE_FILES))
	$(call step,mmdet_clim)
	$(PIP) install --no-deps --no-build-isolation \
		--force-reinstall .
	@rm -rf build mmdet_clim.egg-info
	$(done)

$(STAMPS)/docs: $(STAMPS)/package requirements/docs.txt
	$(call step,what builds the documentation)
	$(PIP_INSTALL) -r requirements/docs.txt
	$(done)

endif
