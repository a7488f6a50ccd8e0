"""Errors of calls that cannot succeed as they are."""

from ragcrawl_dynamo.errors.base import RagcrawlDynamoError


class InvalidInputError(RagcrawlDynamoError, ValueError):
    """A record or an argument is not valid; nothing was sent.

    Attributes:
        model: The name of the model, such as "Page"; None for a plain argument.
        field: The field or argument. Inside free JSON it is a path such as "config.headers.0".
        reason: The mistake, and the values that are allowed.
    """

    def __init__(self, field: str, reason: str, *, model: str | None = None) -> None:
        self.model = model
        self.field = field
        self.reason = reason
        super().__init__(f"{model + '.' if model else ''}{field}: {reason}")


class InvalidArgumentError(InvalidInputError):
    """An argument has a wrong type or a value that is not allowed."""


class InvalidCursorError(InvalidInputError):
    """A cursor is damaged or belongs to another listing."""


class InvalidKeyError(InvalidInputError):
    """An id is empty, or longer than DynamoDB allows for a key."""


class InvalidValueError(InvalidInputError):
    """A field has a value that DynamoDB cannot store."""


class ItemTooLargeError(InvalidInputError):
    """A record is larger than DynamoDB allows for an item, even with its large settings compressed.

    Attributes:
        size: The size of the item in bytes, counted by DynamoDB's own rule.
        limit: The number of bytes that an item may take.
    """

    def __init__(self, largest: tuple[str, str], *, model: str, record: str, size: int, limit: int) -> None:
        """`largest` is the name and size of the largest field, `record` the key of the record as text."""
        self.size = size
        self.limit = limit
        field, field_size = largest
        super().__init__(
            field,
            f"{record} takes {size:,} bytes, an item may take {limit:,}; "
            f"its largest field is {field} with {field_size}: shorten or remove it",
            model=model,
        )


class ContentTooLargeError(InvalidInputError):
    """The body of a version is larger than `max_content_bytes`.

    Attributes:
        size: The size of the body in bytes before compression.
        limit: The number of bytes that a body may take.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.limit = limit
        super().__init__(
            "markdown",
            f"the body (with html, plain_text, outlinks and headings_outline) takes {size:,} bytes, "
            f"max_content_bytes is {limit:,}: raise it, or shorten the body",
            model="PageVersion",
        )


class HostBudgetError(InvalidInputError):
    """The host of a link has as many links as the run's `host_max_items` allows."""
