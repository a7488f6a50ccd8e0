"""The demo of a search index has an environment of its own, which `make test-rag` makes."""

from importlib.util import find_spec

collect_ignore = [] if find_spec("sqlite_vec") else ["test_rag.py"]
