PYTHON ?= python3

.PHONY: install test slow lint docs bench ci

install:  ## everything for work on the project
	$(PYTHON) -m pip install -e '.[cpu,data,report,test,dev,docs]'

test:  ## the default suite, as CI runs it
	$(PYTHON) -m pytest -n 2 --dist worksteal

slow:  ## the whole zoo: half an hour on two cores
	$(PYTHON) -m pytest -m slow -n 2

lint:
	ruff check . && ruff format --check . && mypy

docs:  ## write the CLI reference and the pictures again, and the site
	$(PYTHON) docs/generate.py
	NO_MKDOCS_2_WARNING=1 mkdocs build --strict

bench:
	$(PYTHON) benchmarks/coverage.py --jobs 2 -o benchmarks/results/coverage.md
	$(PYTHON) benchmarks/speed.py -o benchmarks/results/speed.md

ci:
	bash .ci/run
