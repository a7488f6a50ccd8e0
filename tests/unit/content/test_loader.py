"""How many versions one request reads."""

from ragcrawl_dynamo._content.loader import ReadSize


def test_read_size_is_that_of_many_small_versions_or_of_few_large_ones() -> None:
    size = ReadSize()
    assert size.versions == 5
    size.note(5, 5 * 4_000)
    assert size.versions == 20
    size.note(20, 20 * 100_000)
    assert size.versions == 10
    size.note(10, 10 * 300_000)
    assert size.versions == 3
    size.note(3, 3 * 2_000_000)
    assert size.versions == 1
    # No version is there.
    size.note(1, 0)
    assert size.versions == 20
