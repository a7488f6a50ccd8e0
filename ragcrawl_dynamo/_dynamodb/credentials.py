"""Reads the credentials of a client at its first request, and again after they have expired.

botocore reads most credentials while it makes a client, once, and fails with what its way of reading them
raises: an OSError for a missing file, a RuntimeError, an error of another service. Here they are read within
a request, under its deadline and its retries, and every failure is a `CredentialsUnavailableError`.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import partial
from http import HTTPStatus
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    NoCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
    TokenRetrievalError,
)
from botocore.exceptions import ConnectionError as BotoConnectionError

# DynamoDB's and S3's name for a session token that is not valid any more.
EXPIRED_TOKEN_CODES = frozenset({"ExpiredToken", "ExpiredTokenException"})

# Of STS and IAM Identity Center: their other errors repeat.
_TRANSIENT_CODES = frozenset(
    {"IDPCommunicationError", "RequestLimitExceeded", "Throttling", "ThrottlingException"}
)
# The providers that ask a server on the machine or in its network.
_METADATA_PROVIDERS = frozenset({"container-role", "iam-role"})
_STATUS = re.compile(r"non 200 response \(?(\d{3})")

# The number of the reading of credentials with which the request that this task awaits was signed.
_reading: ContextVar[int] = ContextVar("ragcrawl_dynamo_reading", default=0)


class CredentialsUnavailableError(BotoCoreError):  # type: ignore[misc] # botocore has no types
    """The credentials could not be read, so the request was not sent.

    Attributes:
        cause: The error that was raised when they were read.
        is_transient: Whether reading them can succeed a moment later.
    """

    fmt = "{error}"

    def __init__(self, cause: Exception) -> None:
        super().__init__(error=cause)
        self.cause = cause
        self.is_transient = _is_transient(cause)


class RenewableCredentials:
    """The credentials of one client, as botocore's signer asks for them, and as their own provider.

    Args:
        load: Reads them again: returns credentials of botocore, or None if there are none.
    """

    method = "ragcrawl-dynamo"

    def __init__(self, load: Callable[[], Awaitable[Any]]) -> None:
        self._load = load
        self._lock = asyncio.Lock()
        self._credentials: Any = None
        self._readings = 0

    async def load_credentials(self) -> RenewableCredentials:
        """Returns itself, without reading anything."""
        return self

    async def get_frozen_credentials(self) -> Any:
        """Returns the keys to sign a request with.

        Raises:
            CredentialsUnavailableError: They cannot be read.
        """
        frozen = await self._ask("get_frozen_credentials")
        _reading.set(self._readings)
        return frozen

    async def get_account_id(self) -> str | None:
        """Returns the account that they belong to, if it is known.

        Raises:
            CredentialsUnavailableError: They cannot be read.
        """
        account: str | None = await self._ask("get_account_id")
        return account

    def get_deferred_property(self, name: str) -> Callable[[], Awaitable[Any]]:
        """Returns a function that asks for a property, as botocore's rules of endpoints do."""
        return partial(self._ask, f"get_{name}")

    def note_answer(self, parsed: dict[str, Any], **_: Any) -> None:
        """Forgets credentials that an answer says are expired; a handler of the event after-call.

        Of many requests that were signed with the same credentials, only the first answer has an effect.
        """
        is_expired = parsed.get("Error", {}).get("Code") in EXPIRED_TOKEN_CODES
        if is_expired and _reading.get() == self._readings:
            self._credentials = None

    async def _ask(self, method: str) -> Any:
        try:
            if (credentials := self._credentials) is None:
                credentials = await self._read()
            # Credentials that a user made can be those of botocore itself, which do not wait.
            value = getattr(credentials, method, lambda: None)()
            return await value if inspect.isawaitable(value) else value
        except Exception as error:
            raise CredentialsUnavailableError(error) from error

    async def _read(self) -> Any:
        async with self._lock:
            if self._credentials is None:
                credentials = await self._load()
                if credentials is None:
                    raise NoCredentialsError
                self._credentials = credentials
                self._readings += 1
            return self._credentials


def advice_on(error: Exception) -> str:
    """Returns what to do about an error of reading credentials."""
    if isinstance(error, SSOError | TokenRetrievalError):
        return "sign in again with `aws sso login`"
    provider = error.kwargs.get("provider") if isinstance(error, CredentialRetrievalError) else None
    if provider in _METADATA_PROVIDERS:
        return (
            "check the role of the container or instance, AWS_CONTAINER_CREDENTIALS_FULL_URI or "
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, and that this endpoint can be reached"
        )
    if provider == "custom-process":
        return "run the credential_process of the profile by hand, and correct it"
    if isinstance(error, ClientError):
        return "check role_arn, the role's trust policy, and what the role is assumed with"
    if isinstance(error, OSError):
        return (
            "check that the files and programs exist that hold or print the credentials: "
            "AWS_WEB_IDENTITY_TOKEN_FILE, and credential_process of the profile"
        )
    if isinstance(error, NoCredentialsError | ProfileNotFound):
        return (
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, a role, "
            "or access_key_id and secret_access_key in the config"
        )
    return "check the profile in the shared AWS configuration files, and what its credentials come from"


def _is_transient(error: Exception) -> bool:
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return _is_transient_status(status) or error.response["Error"]["Code"] in _TRANSIENT_CODES
    if isinstance(error, CredentialRetrievalError) and error.kwargs.get("provider") in _METADATA_PROVIDERS:
        answer = _STATUS.search(str(error))
        return answer is None or _is_transient_status(int(answer[1]))
    is_of_network = isinstance(error, HTTPClientError | BotoConnectionError | ConnectionError | TimeoutError)
    return is_of_network and not isinstance(error, SSLError)


def _is_transient_status(status: int) -> bool:
    return status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR
