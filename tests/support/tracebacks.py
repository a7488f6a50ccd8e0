"""Reads tracebacks as Python prints them."""

import traceback


def assert_ends_at_our_error(error: BaseException) -> None:
    """Checks that the traceback of an error shows no other error, and no frame of an installed library."""
    shown = "".join(traceback.format_exception(error))
    assert shown.count("Traceback (most recent call last)") == 1, shown
    assert "site-packages" not in shown, shown
    assert f"\nragcrawl_dynamo.errors.{type(error).__name__}: " in shown, shown
