# Two commands: `make demo` and `make test`. Both set up what they need in .venv.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DB := demo/trustmine.db
REPO ?= https://github.com/curl/curl
TRUSTMINE := $(BIN)/trustmine

# llama.cpp is compiled for this machine's processor; its AMX units need the header that is named here.
export CMAKE_ARGS += -DCMAKE_CXX_FLAGS="-include '$(CURDIR)/native/amx_tile_config.h'"

FURTHEST := select substr(sha, 1, 12) from commits join stages on stage = status order by place desc, id limit 1

.PHONY: demo test bench bench-llm setup lock clean

demo: $(READY)
	$(TRUSTMINE) demo demo/repo --known-fixes demo/known_fixes.csv
	$(TRUSTMINE) ingest demo/repo --db $(DB) --name demo
	$(TRUSTMINE) label demo/known_fixes.csv --db $(DB)
	$(TRUSTMINE) run --db $(DB)
	$(TRUSTMINE) status --db $(DB)
	$(TRUSTMINE) export demo/export --db $(DB) --format messages
	@echo
	@echo "Try next:"
	@echo "  $(TRUSTMINE) show $$($(BIN)/sqlite-utils query $(DB) --raw "$(FURTHEST)") --db $(DB)"
	@echo "  $(TRUSTMINE) audit demo/known_fixes.csv --db $(DB)"
	@echo "  $(TRUSTMINE) serve --db $(DB)"
	@echo "  head -c 2000 demo/export/train.jsonl"
	@echo "  $(TRUSTMINE) run ~/src/your-project --db your.db"

# PROCESSES share the tests file by file (0: none but pytest itself, as for a debugger); each model has one thread.
PROCESSES ?= 2

test: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder

# Speed and fidelity beside other tools (PyDriller, git, universal-ctags), on a history of your choice:
# make bench REPO=~/src/curl KNOWN=known_fixes.csv; BENCH=--quick for a short one. Writes bench.md.
bench: $(READY)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
		--build-constraint requirements-build.lock --editable ".[bench]"
	$(BIN)/python benchmarks/run.py "$(REPO)" $(if $(KNOWN),--known "$(KNOWN)") --out bench.md $(BENCH)

# The local engine beside a plain loop over llama-cpp-python and llama.cpp's server, on prompts from a history of your
# choice: make bench-llm REPO=~/src/curl LLM="--verdicts 24 --explanations 8 --rounds 1". Hours on two cores as it comes.
bench-llm: $(READY)
	$(BIN)/python benchmarks/llm.py "$(REPO)" $(LLM)

setup: $(READY)

# llama-cpp-python is compiled here (some five minutes on two cores); pip keeps the built wheel. One that it kept from
# before may lack the header above.
$(READY): requirements.lock requirements-build.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; try: make PYTHON=python3.12"; exit 1; }
	@for tool in git cmake cc c++; do command -v $$tool >/dev/null || \
		{ echo "$$tool is needed: install git, cmake and a C/C++ compiler"; exit 1; }; done
	@echo "Setting up $(VENV); the first time llama.cpp is compiled, which takes some minutes"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip==26.3
	$(BIN)/python -m pip install --quiet --build-constraint requirements-build.lock -r requirements.lock
	$(BIN)/python -m pip install --quiet --build-constraint requirements-build.lock --no-deps --editable .
	@$(BIN)/python -c 'import sys; from trustmine.llm import gguf; sys.exit(gguf.leaves_amx_out())' || \
		$(BIN)/python -m pip install --quiet --build-constraint requirements-build.lock --no-cache-dir --no-deps \
			--force-reinstall "$$(grep ^llama-cpp-python== requirements.lock)"
	touch $(READY)

# Resolves anew within the pins of pyproject.toml; needs uv.
lock:
	{ echo "# Every package of a trustmine environment, pinned. Made from pyproject.toml by \`make lock\`."; \
	  uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 \
	  --no-header --no-annotate --no-emit-index-url --quiet; } > requirements.lock.new
	mv requirements.lock.new requirements.lock

clean:
	rm -rf $(VENV) demo dist build .mypy_cache .ruff_cache .pytest_cache .hypothesis
