PYTHON ?= python3
BIN := .venv/bin
DYNAMODB_LOCAL := .dynamodb-local
PORT ?= 8000

.PHONY: $(shell grep -oE '^[a-z][a-z -]*:' Makefile | tr -d :)

help:  ## List the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 24

install: $(BIN)/.installed  ## Build .venv with the locked versions.

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: install  ## Crawl Python's own documentation server into a DynamoDB on this machine (ARGS="--help" for options).
	$(BIN)/python -m examples.crawl_docs $(ARGS)

demo-rag: .venv-rag/.installed  ## Crawl the same site into a search index, ask it questions, edit pages, and sync the index (ARGS="--ask 'how do I make a temporary file?'").
	.venv-rag/bin/python -m examples.rag $(ARGS)

# Apart from .venv: scikit-learn, SciPy and NumPy take 60 MB to download.
.venv-rag/.installed: Makefile pyproject.toml
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) scikit-learn apsw sqlite-vec html-to-markdown lxml --editable '.[local,cli]'
	touch $@

# Many processes import the same modules, which are compiled once.
demo demo-rag test test-unit test-scrapy-suite mutants: export PYTHONDONTWRITEBYTECODE :=

# Twice as many processes as cores: most tests wait for an engine, a lease or another process.
TEST_PROCESSES ?= 4

test: install fetch-dynamodb-local  ## Run all tests, on moto and on DynamoDB Local, and print the coverage (ARGS="-k name" selects some).
	@rm -rf build/coverage && mkdir -p build/coverage
	@status=0; \
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml \
		$(BIN)/python -m pytest -n $(TEST_PROCESSES) --maxschedchunk 1 -q $(ARGS) || status=$$?; \
	$(BIN)/coverage combine -q && $(BIN)/python tools/coverage_table.py $(if $(ARGS),,--floor 85) || status=$$?; \
	exit $$status

test-unit: install  ## Run the tests that need no engine, in some seconds.
	$(BIN)/python -m pytest tests/unit -n 2 -q $(ARGS)

mutants: install .venv-mutants/.installed  ## Change one thing in a room at a time, and see which changes its tests notice, in a quarter of an hour (ROOM=_commit).
	.venv-mutants/bin/python -m benchmarks.mutants $(ROOM) $(ARGS)
	$(BIN)/python -m benchmarks.pages

ROOM ?= _commit

# Apart from .venv: mutmut is no part of what the tests need.
.venv-mutants/.installed: Makefile pyproject.toml constraints.txt
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) --constraint constraints.txt mutmut==3.8.1 --editable '.[dev]'
	touch $@

test-unit-coverage: export COVERAGE_FILE := build/unit-coverage/data
test-unit-coverage: install  ## The branches of the queue and of the commit that unit tests take: 75 % at least.
	@rm -rf build/unit-coverage && mkdir -p build/unit-coverage
	COVERAGE_PROCESS_START=$(CURDIR)/pyproject.toml $(BIN)/python -m pytest tests/unit/frontier tests/unit/commit -n 2 -q
	$(BIN)/coverage combine -q && $(BIN)/python tools/coverage_table.py _frontier _commit --floor 75

# ARGS="-k name" chooses some of the package's own; `make test-scrapy ARGS="-m aws"` runs those of an adapter.
test-aws: install fetch-dynamodb-local  ## Run the tests on a simulated AWS, in under two minutes; `make test` and `make test-adapters` run them too.
	$(BIN)/python -m pytest -m aws -n 3 -q $(ARGS)
	$(if $(ARGS),,$(MAKE) --jobs 3 test-aws-ragcrawl test-aws-crawlee test-aws-scrapy)

# They wait most of the time, for leases and late indexes: so all of them run at once.
test-aws-ragcrawl test-aws-crawlee test-aws-scrapy: test-aws-%: .venv-%/.installed fetch-dynamodb-local
	.venv-$*/bin/python -m pytest tests/adapters -m aws -q

check: lint test  ## Check formatting, lint and types, and run all tests, as CI does.

lint: install  ## Check formatting, lint, types, the order of imports, spelling, plain English, and changelog.d.
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell
	$(BIN)/python tools/prose.py
	$(BIN)/towncrier build --draft --version Unreleased > /dev/null

typecheck-public: install .venv-pyright/.installed  ## Check with pyright that at least 98 % of the public types are complete.
	PATH="$(CURDIR)/$(BIN):$$PATH" .venv-pyright/bin/pyright --verifytypes ragcrawl_dynamo --ignoreexternal \
		--outputjson | $(BIN)/python tools/type_completeness.py

# Apart from .venv: the Node.js that it brings takes 200 MB.
.venv-pyright/.installed: Makefile
	$(PYTHON) -m venv .venv-pyright
	.venv-pyright/bin/pip install --quiet 'pyright[nodejs]==1.1.414'
	touch $@

format: install  ## Format the code.
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

CRAWLER_ragcrawl := ragcrawl==0.0.2
CRAWLER_crawlee := crawlee[beautifulsoup]==1.11.0
CRAWLER_scrapy := scrapy==2.19.0

# Tools of the tests, without the rest of .[dev], which the crawlers' own requirements may not agree with.
ADAPTER_TOOLS := hypothesis mypy pytest pytest-asyncio pytest-timeout types-aiobotocore-dynamodb==2.25.*

# mypy excludes these in the other environments (pyproject.toml), so that it takes them only as single files.
ADAPTER_FILES := ragcrawl_dynamo/adapters/%/*.py tests/adapters/*.py tests/adapters/%/*.py tests/adapters/%/suite/*.py \
	examples/adapters/%_crawl.py benchmarks/adapters/crawl_%.py benchmarks/adapters/soak_%.py

test-adapters: test-scrapy test-crawlee test-scrapy-suite test-ragcrawl test-ragcrawl-suite  ## Check the types and run the tests of each adapter, in its own environment.

# The cache of types is its own: CI runs these at once, and each environment has other packages.
test-ragcrawl test-crawlee test-scrapy: test-%: .venv-%/.installed fetch-dynamodb-local
	.venv-$*/bin/mypy --cache-dir .venv-$*/.mypy_cache $(wildcard $(subst %,$*,$(ADAPTER_FILES)))
	.venv-$*/bin/python -m pytest tests/adapters $(ARGS)

# The source archives of ragcrawl and Scrapy have their tests. Crawlee's has none.
test-ragcrawl-suite: .venv-ragcrawl/.installed .suite-ragcrawl/.fetched fetch-dynamodb-local  ## Run ragcrawl's own tests on the adapter, in half a minute.
	.venv-ragcrawl/bin/python tests/adapters/ragcrawl/suite/ragcrawl_suite.py .suite-ragcrawl $(DYNAMODB_LOCAL)

test-scrapy-suite: .venv-scrapy/.installed .suite-scrapy/.fetched fetch-dynamodb-local  ## Run Scrapy's own tests on the adapter, in under three minutes (ARGS="-k name" selects some).
	cd .suite-scrapy && PYTHONPATH=$(CURDIR)/tests/adapters/scrapy/suite DYNAMODB_LOCAL=$(CURDIR)/$(DYNAMODB_LOCAL) \
		$(CURDIR)/.venv-scrapy/bin/python -m scrapy_suite -n 2 -q --timeout 120 --tb short $(ARGS)

.suite-%/.fetched: .venv-%/.installed
	bash tools/fetch_sdist.sh .venv-$*/bin/pip '$(CRAWLER_$*)' $(@D)
	touch $@

# What Scrapy's own tests need.
.venv-scrapy/.installed: ADAPTER_TOOLS += attrs pillow pyftpdlib pytest-twisted pytest-xdist
.venv-ragcrawl/.installed .venv-crawlee/.installed .venv-scrapy/.installed: .venv-%/.installed: Makefile pyproject.toml
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) '$(CRAWLER_$*)' $(ADAPTER_TOOLS) --editable '.[local,cli]'
	touch $@

# numpy: the vector stores in memory search with it. Qdrant's needs no server for tests.
FRAMEWORKS := langchain-core langchain-text-splitters llama-index-core llama-index-vector-stores-qdrant haystack-ai numpy
FRAMEWORK_FILES := ragcrawl_dynamo/integrations/*.py tests/frameworks/*.py tests/frameworks/*/*.py

test-integrations: .venv-integrations/.installed fetch-dynamodb-local  ## Check the types and run the tests of the integrations with their frameworks, in their own environment.
	.venv-integrations/bin/mypy --cache-dir .venv-integrations/.mypy_cache $(wildcard $(FRAMEWORK_FILES))
	.venv-integrations/bin/python -m pytest tests/frameworks $(ARGS)

# nltk, with which LlamaIndex splits sentences, refuses to read files that are hard links into uv's cache.
.venv-integrations/.installed: export UV_LINK_MODE := copy
.venv-integrations/.installed: Makefile pyproject.toml
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) $(FRAMEWORKS) $(ADAPTER_TOOLS) --editable '.[local]'
	touch $@

test-rag: .venv-rag/.tools  ## Check the types and run the tests of the search index demo, in its own environment.
	.venv-rag/bin/mypy --cache-dir .venv-rag/.mypy_cache examples/rag.py examples/demo_search.py tests/examples/test_rag.py
	.venv-rag/bin/python -m pytest tests/examples/test_rag.py $(ARGS)

.venv-rag/.tools: .venv-rag/.installed
	.venv-rag/bin/pip install --quiet $(ADAPTER_TOOLS)
	touch $@

# On moto, which needs no Java: the tests of what meets the dependencies.
VERSION_TESTS := tests/unit/dynamodb tests/unit/testing tests/unit/test_errors.py tests/unit/test_models.py \
	tests/contract tests/integration/dynamodb tests/integration/test_event_loops.py

VERSION_TOOLS := hypothesis pytest pytest-asyncio pytest-timeout pytest-xdist

test-versions: test-oldest test-newest  ## Run the tests on moto with the oldest and with the newest versions of the dependencies.

test-oldest test-newest: test-%: .venv-%/.installed
	.venv-$*/bin/python -m pytest $(VERSION_TESTS) -k 'not dynamodb-local' -n 2 -q $(ARGS)

# Only uv resolves to the oldest versions. The tools are not ours to bound: their newest versions.
.venv-oldest/.installed: Makefile pyproject.toml
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) --resolution lowest-direct --editable '.[local,domains]'
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python $(VERSION_TOOLS)
	touch $@

# aioboto3 asks for an older aiobotocore than the newest one. It works with it: the client is aiobotocore's.
.venv-newest/.installed: Makefile pyproject.toml
	PYTHON=$(PYTHON) bash tools/make_env.sh $(@D) $(VERSION_TOOLS) --editable '.[local,domains]'
	$(@D)/bin/uv pip install --quiet --python $(@D)/bin/python --upgrade aiobotocore boto3
	touch $@

bench-adapters: install fetch-dynamodb-local .venv-ragcrawl/.installed .venv-crawlee/.installed .venv-scrapy/.installed  ## Measure the cost of a page for each crawler; writes docs/adapters/costs.md.
	$(BIN)/python -m benchmarks.adapters.run $(ARGS)
	$(BIN)/python -m benchmarks.pages

bench-bodies: install fetch-dynamodb-local .venv-peers/.installed  ## Measure the write and read units of page bodies, and compare with others.
	$(BIN)/python -m benchmarks.bodies $(ARGS)
	$(BIN)/python -m benchmarks.pages

bench-frontier: install fetch-dynamodb-local  ## Measure whether the queue keeps its promises (ARGS="--only NAME", "--scale 0.1").
	$(BIN)/python -m benchmarks.frontier $(ARGS)
	$(BIN)/python -m benchmarks.pages

bench-partitions: install fetch-dynamodb-local  ## Measure units by partition key value, and the limits of a run; writes docs/scale.md (ARGS="--scale 0.1" writes nothing).
	$(BIN)/python -m benchmarks.partitions $(ARGS)
	$(BIN)/python -m benchmarks.pages

soak: install fetch-dynamodb-local  ## Call all methods under faults, and compare with a ledger: 100,000 operations, ten minutes.
	$(BIN)/python -m benchmarks.soak $(ARGS)

soak-adapters: install fetch-dynamodb-local .venv-ragcrawl/.installed .venv-crawlee/.installed .venv-scrapy/.installed  ## Crawl 100 sites of 500 pages with each crawler, and kill its processes: about an hour.
	$(BIN)/python -m benchmarks.adapters.soak $(ARGS)
	$(BIN)/python -m benchmarks.pages

soak-aws: install fetch-dynamodb-local  ## Crawl on a simulated AWS while workers are killed and frozen and DynamoDB throttles: 20 minutes.
	$(BIN)/python -m benchmarks.soak_aws $(ARGS)

soak-cancel: install fetch-dynamodb-local  ## Cancel 10,000 tasks at random awaits, and compare with a ledger.
	$(BIN)/python -m benchmarks.cancel $(ARGS)

soak-outage: install fetch-dynamodb-local  ## Crawl 3,000 links while DynamoDB is out of reach, hangs and throttles, and credentials expire: a few minutes.
	$(BIN)/python -m benchmarks.soak_outage $(ARGS)

soak-memory: install fetch-dynamodb-local  ## Measure memory and connections each minute, during ten minutes of steady load.
	$(BIN)/python -m benchmarks.memory $(ARGS)

bench: install fetch-dynamodb-local .venv-speed/.installed  ## Compare the speed with other libraries, in a quarter of an hour; writes docs/benchmarks.md.
	$(BIN)/python -m benchmarks.speed.run $(ARGS)
	$(BIN)/python -m benchmarks.pages

bench-hooks: install  ## Measure the CPU that each part of the tuned client saves.
	$(BIN)/python -m benchmarks.speed.hooks $(ARGS)
	$(BIN)/python -m benchmarks.pages

bench-growth: install fetch-dynamodb-local .venv-speed/.installed  ## Measure the same operations on 1,000, 10,000 and 100,000 pages; writes docs/growth.md.
	$(BIN)/python -m benchmarks.speed.growth $(ARGS)
	$(BIN)/python -m benchmarks.pages

.venv-speed/.installed: Makefile
	$(PYTHON) -m venv .venv-speed
	.venv-speed/bin/pip install --quiet aiodynamo==26.4 'aiohttp>=3.14' pydynox==1.8.0 aiopynamodb==1.0.1 pynamodb==6.1.0 matplotlib
	touch $@

audit:  ## List the known vulnerabilities of the locked versions, from PyPI (needs the network).
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/pip install --quiet pip-audit
	.venv-audit/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip

bench-recrawl: install fetch-dynamodb-local  ## Measure the query for the pages to crawl next, on a million pages: time, units, memory.
	$(BIN)/python -m benchmarks.recrawl $(ARGS)

bench-cycle: install fetch-dynamodb-local  ## Measure the requests and units of a page from claim to commit.
	$(BIN)/python -m benchmarks.cycle $(ARGS)
	$(BIN)/python -m benchmarks.pages

stress-frontier: install fetch-dynamodb-local  ## Kill workers again and again during a crawl, and check that no item is lost or held twice.
	$(BIN)/python -m benchmarks.stress_frontier $(ARGS)

.venv-peers/.installed: Makefile
	$(PYTHON) -m venv .venv-peers
	.venv-peers/bin/pip install --quiet 'ragcrawl[dynamodb]==0.0.2' pynamodb==6.1.0
	touch $@

dynamodb-local: install fetch-dynamodb-local  ## Start DynamoDB Local, AWS's own engine, on PORT (8000); Ctrl-C ends it.
	$(BIN)/ragcrawl-dynamo local --dynamodb-local $(DYNAMODB_LOCAL) --port $(PORT)

fetch-dynamodb-local:
	@bash tools/fetch_dynamodb_local.sh $(DYNAMODB_LOCAL)

docs: .venv-docs/.installed  ## Build the documentation into build/docs; a warning is an error.
	NO_MKDOCS_2_WARNING=1 .venv-docs/bin/mkdocs build --strict

.venv-docs/.installed: Makefile pyproject.toml
	$(PYTHON) -m venv .venv-docs
	.venv-docs/bin/pip install --quiet --constraint constraints.txt mkdocs-material==9.8.2 'mkdocstrings[python]==1.0.8' ruff --editable '.[otel]'
	touch $@

check-wheel:  ## Install the wheel without extras into an empty environment, and test it there.
	bash tools/check_wheel.sh

docs-figures: install .venv-speed/.installed  ## Write the tables and plots of the docs anew from benchmarks/data; measures nothing.
	$(BIN)/python -m benchmarks.pages

changelog: install  ## Print the changes since the last release; with VERSION=1.2.3, write them into CHANGELOG.md.
	$(BIN)/towncrier build $(if $(VERSION),--version $(VERSION) --yes,--draft --version Unreleased --date '')

release: install  ## Check that the version can be released, and print how; UPLOAD=yes tags it, and CI uploads it.
	bash tools/release.sh

docs-drawings:  ## Render docs/drawings/*.dot (needs graphviz).
	for drawing in docs/drawings/*.dot; do dot -Tsvg $$drawing -o $${drawing%.dot}.svg; done

docs-cli: install fetch-dynamodb-local  ## Run example calls of the command line, and write docs/cli.md.
	$(BIN)/python tools/cli_walk.py

constraints:  ## Resolve the newest allowed versions into constraints.txt.
	rm -rf .venv-resolve && $(PYTHON) -m venv .venv-resolve
	.venv-resolve/bin/pip install --quiet --editable '.[dev]'
	.venv-resolve/bin/pip freeze --exclude-editable > constraints.txt
	rm -rf .venv-resolve

clean:  ## Remove all files that the other targets created.
	rm -rf .venv .venv-peers .venv-speed .venv-audit .venv-pyright .venv-docs .venv-ragcrawl .venv-crawlee .venv-scrapy .suite-scrapy .venv-integrations .venv-mutants .venv-rag .venv-oldest .venv-newest .suite-ragcrawl $(DYNAMODB_LOCAL) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
