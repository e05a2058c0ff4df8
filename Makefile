PYTHON ?= python3

.PHONY: install test slow lint docs bench ci

install:  ## everything for work on the project
	$(PYTHON) -m pip install -e '.[cpu,data,test,dev]'

test:  ## the default suite, as CI runs it
	$(PYTHON) -m pytest -n 2

slow:  ## the whole zoo: half an hour on two cores
	$(PYTHON) -m pytest -m slow -n 2

lint:
	ruff check . && ruff format --check . && mypy

docs:  ## write the CLI reference and the pictures again
	$(PYTHON) docs/generate.py

bench:
	$(PYTHON) benchmarks/coverage.py --jobs 2 -o benchmarks/results/coverage.md
	$(PYTHON) benchmarks/speed.py -o benchmarks/results/speed.md

ci:
	bash .ci/run
