# The commands of the README. The first one run makes .venv and installs into it; later ones reuse it
# until pyproject.toml or constraints.txt change.

CONFIG ?= configs/quickstart.toml
PYTEST_ARGS ?=
# Compiling takes longest in the tests: a process for each CPU. Two of them come to 11 GiB, more share that.
JOBS := -n auto --maxprocesses 4 --dist worksteal
ARGS ?=
CANDIDATES := $(PYTHON) python3 python3.13 python3.12 python3.14 /usr/bin/python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: sweep test test-all lint bench record validate install clean

sweep: $(INSTALLED)
	@$(BIN)/jaxswap sweep $(CONFIG)

test: $(INSTALLED)
	@$(BIN)/python -m pytest $(JOBS) $(PYTEST_ARGS)

test-all: $(INSTALLED)
	@$(BIN)/python -m pytest $(JOBS) -m "slow or not slow" $(PYTEST_ARGS)

lint: $(INSTALLED)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/pyright

bench: $(INSTALLED)
	@$(BIN)/jaxswap bench

# make record ARGS='--kernel 7.3.4 --workload W.t --out OUT.txt --mthp 64'
record: $(INSTALLED)
	@$(BIN)/python -m experiments.real_kernel record $(ARGS)

# Fresh random workloads on real kernels under QEMU; make validate ARGS='--kernels 7.3.4,7.2.12 --seeds 20'
validate: $(INSTALLED)
	@$(BIN)/python -m experiments.real_kernel validate $(ARGS)

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	@set -eu; found=; \
	for candidate in $(CANDIDATES); do \
		if "$$candidate" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; \
		then found="$$candidate"; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "jaxswap: needs Python 3.12 or newer with its venv module; none found (tried: $(strip $(CANDIDATES)))." \
			"Install one, or name it: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; \
	fi; \
	if ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))' >/dev/null 2>&1; then \
		echo "jaxswap: making .venv with $$("$$found" --version)"; \
		"$$found" -m venv --clear .venv; \
	fi; \
	echo "jaxswap: installing into .venv (once)"; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'; \
	touch $@

clean:
	rm -rf .venv build dist .pytest_cache .ruff_cache .hypothesis
