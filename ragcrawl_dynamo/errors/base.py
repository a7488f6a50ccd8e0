"""The base class of all errors, and the errors of a backend that is not open."""

from typing import Any, TypeVar

E = TypeVar("E", bound="RagcrawlDynamoError")


class RagcrawlDynamoError(Exception):
    """The base class of all errors of this package. The docstring of a subclass is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles the message and the attributes.

        Python would call the constructor with the message, but most constructors take other arguments.
        """
        return _restore, (type(self), self.args), self.__dict__


class MissingExtraError(RagcrawlDynamoError, ImportError):
    """A dependency is not installed that only some features need."""

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(f"{feature} needs an extra: pip install 'ragcrawl-dynamo[{extra}]'")


class BackendStateError(RagcrawlDynamoError):
    """The backend cannot serve the call in its present state."""


class BackendNotOpenError(BackendStateError):
    """The backend is not open: await backend.initialize() first, or use 'async with backend'."""


class BackendClosedError(BackendStateError):
    """The backend is closed: await backend.initialize() opens it again."""


class WrongEventLoopError(BackendStateError):
    """The backend is open in another event loop and works only there: make one backend per loop.

    Once that loop is closed, await backend.initialize() opens the backend in the present one.
    """


class WrongProcessError(BackendStateError):
    """The backend was opened before a fork, in another process: make and open a backend in each process."""


def _restore(kind: type[E], args: tuple[Any, ...]) -> E:
    return kind.__new__(kind, *args)
