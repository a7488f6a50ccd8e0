"""The base class of all errors, and the errors of a backend that is not open."""


class RagcrawlDynamoError(Exception):
    """The base class of all errors of this package. The docstring of a subclass is its default message."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (self.__doc__ or "").strip())


class BackendStateError(RagcrawlDynamoError):
    """The backend cannot serve the call in its present state."""


class BackendNotOpenError(BackendStateError):
    """The backend is not open: await backend.initialize() first, or use 'async with backend'."""


class BackendClosedError(BackendStateError):
    """The backend is closed: await backend.initialize() opens it again."""


class WrongEventLoopError(BackendStateError):
    """The backend is open in another event loop and works only there: make one backend per loop."""
