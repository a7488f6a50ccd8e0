"""Credentials that are missing, late, expired or one's own, and requests whose signature has expired."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import aioboto3
import boto3
import orjson
import pytest
from aiobotocore.credentials import AioRefreshableCredentials
from aiobotocore.session import AioSession
from aiohttp import web
from botocore.credentials import CredentialProvider, SSOProvider
from botocore.utils import ContainerMetadataFetcher

from ragcrawl_dynamo import (
    AccessDeniedError,
    CredentialsError,
    DynamoDBBackend,
    DynamoDBConfig,
    InvalidArgumentError,
    connect,
)
from ragcrawl_dynamo._dynamodb import fast_path
from ragcrawl_dynamo._dynamodb.client import Access
from ragcrawl_dynamo._dynamodb.gateway import Gateway
from ragcrawl_dynamo.testing import local_config
from tests.support.aws_environment import AwsEnvironment
from tests.support.http_server import http_server, refusing
from tests.support.tracebacks import assert_ends_at_our_error

GET: Any = {"TableName": "t", "Key": {"id": {"S": "1"}}}
QUICK: dict[str, Any] = {"retry_base_delay": 0.001, "retry_attempts": 4, "call_timeout": 10}
STATIC: dict[str, Any] = {"access_key_id": "KEY", "secret_access_key": "s"}
EXPIRED = ("ExpiredTokenException", "The security token included in the request is expired")
LATE = ("InvalidSignatureException", "Signature expired: 20260101T000000Z is now earlier than ...")


def key_of(request: web.Request) -> str:
    return request.headers["Authorization"].split("Credential=")[1].split("/")[0]


class Server:
    """Answers GetItem in DynamoDB's stead, and remembers by which access key each request was signed."""

    def __init__(self, refusal: Callable[[str], tuple[str, str] | None] = lambda key: None) -> None:
        self.keys: list[str] = []
        self.headers: list[dict[str, str]] = []
        self._refusal = refusal

    async def answer(self, request: web.Request) -> web.Response:
        key = key_of(request)
        self.keys.append(key)
        self.headers.append(dict(request.headers))
        if (refusal := self._refusal(key)) is not None:
            return await refusing(*refusal)(request)
        await request.read()
        body = orjson.dumps({"Item": {"id": {"S": "1"}, "signed_by": {"S": key}}})
        headers = {"x-amzn-requestid": "one"}
        return web.Response(body=body, content_type="application/x-amz-json-1.0", headers=headers)


@asynccontextmanager
async def opened(server: Server, access: Access | None = None, **settings: Any) -> AsyncIterator[Gateway]:
    """A gateway on a server."""
    async with http_server(server.answer) as url:
        config = DynamoDBConfig(**{"endpoint_url": url, "region": "eu-central-1", **QUICK, **settings})
        gateway = Gateway(config, access=access)
        await gateway.open()
        try:
            yield gateway
        finally:
            await gateway.close()


async def refused_by(server: Server) -> CredentialsError:
    """The error of a request that finds no credentials; it is neither retried nor sent."""
    async with opened(server) as gateway:
        with pytest.raises(CredentialsError) as caught:
            await gateway.call("GetItem", GET)
        assert sum(counters.retries for counters in gateway.metrics.snapshot().values()) == 0
    assert_ends_at_our_error(caught.value)
    assert (caught.value.operation, server.keys) == ("GetItem", [])
    assert not caught.value.is_transient
    return caught.value


@pytest.mark.parametrize(
    ("command", "told", "advice"),
    [
        ("/no/such/program --quick", "No such file or directory: '/no/such/program'", "credential_process"),
        (f"{sys.executable} -c \"raise SystemExit('vault is sealed')\"", "vault is sealed", "by hand"),
        (f'{sys.executable} -c "print(1, 2)"', "Extra data", "check the profile"),
    ],
)
async def test_credentials_error_of_a_credential_process_that_fails(
    aws_environment: AwsEnvironment, command: str, told: str, advice: str
) -> None:
    aws_environment.write(f"[default]\ncredential_process = {command}\n")
    error = await refused_by(Server())
    assert told in str(error)
    assert advice in str(error)


async def test_credentials_error_of_a_web_identity_file_that_is_missing(
    aws_environment: AwsEnvironment,
) -> None:
    missing = str(aws_environment.folder / "token")
    aws_environment.set(AWS_WEB_IDENTITY_TOKEN_FILE=missing, AWS_ROLE_ARN="arn:aws:iam::1:role/r")
    error = await refused_by(Server())
    assert missing in str(error)
    assert "check that the files and programs exist" in str(error)
    assert error.cause_type == "builtins.FileNotFoundError"


async def test_credentials_error_of_sso_that_has_expired(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = aws_environment.folder
    monkeypatch.setattr(SSOProvider, "_SSO_TOKEN_CACHE_DIR", str(cache))
    url = "https://sign-in.example"
    aws_environment.write(
        f"[default]\nsso_start_url = {url}\nsso_region = eu-west-1\nsso_account_id = 1\nsso_role_name = r\n"
    )
    assert "sign in again with `aws sso login`" in str(await refused_by(Server()))
    token = {"accessToken": "TOKEN", "expiresAt": "2020-01-01T00:00:00Z", "startUrl": url}
    name = hashlib.sha1(url.encode(), usedforsecurity=False).hexdigest()
    (cache / f"{name}.json").write_text(json.dumps(token))

    async def refuse(request: web.Request) -> web.Response:
        """Answers in place of IAM Identity Center, which older versions of aiobotocore ask all the same."""
        return web.json_response({}, status=401, headers={"x-amzn-ErrorType": "UnauthorizedException"})

    async with http_server(refuse) as portal:
        aws_environment.set(AWS_ENDPOINT_URL_SSO=portal)
        error = await refused_by(Server())
    assert "has expired or is otherwise invalid" in str(error)
    assert "TOKEN" not in str(error)


class Container:
    """The endpoint of a container's credentials, which answers with the given statuses, and then with 200."""

    def __init__(self, *statuses: int) -> None:
        self.statuses = list(statuses)
        self.asked = 0

    async def answer(self, request: web.Request) -> web.Response:
        self.asked += 1
        if self.statuses:
            return web.Response(status=self.statuses.pop(0), text="You have reached maximum request limit.")
        expires = datetime.now(UTC) + timedelta(hours=6)
        keys = {"AccessKeyId": "CONTAINER", "SecretAccessKey": "s", "Token": "t"}
        return web.json_response({**keys, "Expiration": expires.isoformat()})


@asynccontextmanager
async def container_of(
    environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch, *statuses: int
) -> AsyncIterator[Container]:
    monkeypatch.setattr(ContainerMetadataFetcher, "SLEEP_TIME", 0)
    container = Container(*statuses)
    async with http_server(container.answer) as url:
        environment.set(AWS_CONTAINER_CREDENTIALS_FULL_URI=url)
        yield container


@pytest.mark.parametrize("status", [429, 500])
async def test_credentials_of_a_container_that_throttles_are_asked_for_again(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    server = Server()
    async with (
        container_of(aws_environment, monkeypatch, *[status] * 7) as container,
        opened(server) as gateway,
    ):
        # aiobotocore asks three times for each of our attempts.
        calls = [gateway.call("GetItem", GET) for _ in range(5)]
        assert [answer["Item"]["signed_by"]["S"] for answer in await asyncio.gather(*calls)] == [
            "CONTAINER"
        ] * 5
    assert container.asked == 8
    assert server.keys == ["CONTAINER"] * 5


async def test_credentials_of_a_container_that_throttles_are_asked_for_until_the_deadline(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    quick: dict[str, Any] = {"retry_attempts": None, "retry_max_delay": 0.002, "call_timeout": 60}
    # Far more attempts than any limit of attempts: aiobotocore asks three times for each.
    async with container_of(aws_environment, monkeypatch, *[429] * 150), opened(server, **quick) as gateway:
        await gateway.call("GetItem", GET)
        assert gateway.metrics.snapshot()["GetItem", "t"].retries == 50
    quick["call_timeout"] = 0.2
    async with container_of(aws_environment, monkeypatch, *[429] * 9999), opened(server, **quick) as gateway:
        with pytest.raises(CredentialsError) as caught:
            await gateway.call("GetItem", GET)
    assert caught.value.is_transient


async def test_credentials_error_of_a_container_that_throttles_to_the_end(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    async with container_of(aws_environment, monkeypatch, *[429] * 100), opened(server) as gateway:
        with pytest.raises(CredentialsError, match=r"429 .*check the role of the container") as caught:
            await gateway.call("GetItem", GET)
        assert gateway.metrics.snapshot()["GetItem", "t"].retries == 3
    assert caught.value.code == "CredentialRetrievalError"
    assert caught.value.is_transient


async def test_credentials_error_is_the_error_at_the_deadline_if_a_container_throttles(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    patient: dict[str, Any] = {"call_timeout": 0.5, "retry_base_delay": 60.0, "retry_max_delay": 60.0}
    async with (
        container_of(aws_environment, monkeypatch, *[429] * 100),
        opened(Server(), **patient) as gateway,
    ):
        with pytest.raises(CredentialsError, match="429"):
            await gateway.call("GetItem", GET)


async def test_credentials_error_of_a_container_that_refuses(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with container_of(aws_environment, monkeypatch, *[403] * 100):
        assert "403" in str(await refused_by(Server()))


@pytest.mark.parametrize("known", [True, False])
async def test_expired_token_reads_the_credentials_again_once_for_all_requests(
    aws_environment: AwsEnvironment, monkeypatch: pytest.MonkeyPatch, *, known: bool
) -> None:
    """Also for those that are refused when the others have been signed anew already."""
    monkeypatch.setattr(fast_path, "is_known", lambda: known)
    counter = aws_environment.folder / "count"
    counter.write_text("")
    script = aws_environment.folder / "credentials.py"
    script.write_text(
        f"import json; f = open({str(counter)!r}, 'a+'); f.seek(0); n = len(f.read()); f.write('x')\n"
        "keys = {'AccessKeyId': f'KEY{n}', 'SecretAccessKey': 's', 'SessionToken': 't'}\n"
        "print(json.dumps({'Version': 1, **keys}))\n"
    )
    aws_environment.write(f"[default]\ncredential_process = {sys.executable} {script}\n")
    expired: set[str] = set()

    class Slow(Server):
        def __init__(self) -> None:
            super().__init__(lambda key: EXPIRED if key in expired else None)
            self.is_renewed = asyncio.Event()

        async def answer(self, request: web.Request) -> web.Response:
            answer = await super().answer(request)
            if key_of(request) == "KEY1":
                self.is_renewed.set()
            elif len(self.keys) > 6:
                await self.is_renewed.wait()
            return answer

    server = Slow()
    async with opened(server) as gateway:
        await gateway.call("GetItem", GET)
        expired.add("KEY0")
        answers = await asyncio.gather(*(gateway.call("GetItem", GET) for _ in range(10)))
        assert {answer["Item"]["signed_by"]["S"] for answer in answers} == {"KEY1"}
        assert gateway.metrics.snapshot()["GetItem", "t"].retries == 10
    assert sorted(server.keys) == ["KEY0"] * 11 + ["KEY1"] * 10
    assert counter.read_text() == "xx"


async def test_expired_token_that_stays_expired_is_a_credentials_error(
    aws_environment: AwsEnvironment,
) -> None:
    aws_environment.set_keys("KEY")
    server = Server(lambda key: EXPIRED)
    async with opened(server) as gateway:
        with pytest.raises(
            CredentialsError, match="even after it was read again: renew the credentials"
        ) as caught:
            await gateway.call("GetItem", GET)
    assert (caught.value.code, caught.value.status_code) == ("ExpiredTokenException", 400)
    assert server.keys == ["KEY"] * 2


async def test_signature_that_expired_is_made_anew() -> None:
    refusals = [LATE]
    server = Server(lambda key: refusals.pop() if refusals else None)
    async with opened(server, **STATIC) as gateway:
        await gateway.call("GetItem", GET)
    assert server.keys == ["KEY"] * 2


async def test_signature_that_expires_each_time_is_blamed_on_the_clock() -> None:
    server = Server(lambda key: LATE)
    async with opened(server, **STATIC) as gateway:
        with pytest.raises(AccessDeniedError, match="even with a new signature: correct the clock"):
            await gateway.call("GetItem", GET)
    assert server.keys == ["KEY"] * 2


class Rotating(CredentialProvider):  # type: ignore[misc] # botocore has no types
    """A user's provider of credentials that are valid for so short that each request renews them."""

    METHOD = "rotating"
    CANONICAL_NAME = "rotating"

    def __init__(self) -> None:
        self.issued = 0

    async def load(self) -> Any:
        return AioRefreshableCredentials.create_from_metadata(await self._issue(), self._issue, self.METHOD)

    async def _issue(self) -> dict[str, str]:
        self.issued += 1
        expires = datetime.now(UTC) + timedelta(minutes=5)
        keys = {"access_key": f"KEY{self.issued}", "secret_key": "s", "token": "t"}
        return {**keys, "expiry_time": expires.isoformat()}


def session_of(kind: str) -> tuple[Any, AioSession]:
    """A session of a user with rotating credentials, and the session of botocore in it."""
    session = AioSession()
    session.get_component("credential_provider").insert_before("env", Rotating())
    session.set_config_variable("region", "eu-west-3")
    return (aioboto3.Session(botocore_session=session) if kind == "aioboto3" else session), session


@pytest.mark.parametrize("kind", ["aioboto3", "aiobotocore"])
async def test_session_gives_its_credentials_its_region_and_its_event_handlers(
    aws_environment: AwsEnvironment, kind: str
) -> None:
    aws_environment.set_keys("ENVIRONMENT")
    session, core = session_of(kind)

    def mark(request: Any, **_: Any) -> None:
        request.headers["x-marked"] = "yes"

    core.register("before-sign.dynamodb", mark)
    parsers = core.get_component("response_parser_factory")
    server = Server()
    async with opened(server, Access(session=session), region=None) as gateway:
        assert gateway.find_destination().region_source == "session"
        for _ in range(3):
            await gateway.call("GetItem", GET)
    assert len(set(server.keys)) == 3
    assert all(key.startswith("KEY") for key in server.keys)
    assert all("/eu-west-3/" in headers["Authorization"] for headers in server.headers)
    assert all(headers["x-marked"] == "yes" for headers in server.headers)
    # It is the user's: other clients are made of it.
    assert core.get_component("response_parser_factory") is parsers


async def test_session_that_renews_its_credentials_late_is_asked_again(
    aws_environment: AwsEnvironment,
) -> None:
    session = AioSession()
    session.set_credentials("OLD", "s", "t")
    server = Server(lambda key: EXPIRED if key == "OLD" else None)
    async with opened(server, Access(session=session)) as gateway:
        with pytest.raises(CredentialsError):
            await gateway.call("GetItem", GET)
        session.set_credentials("NEW", "s", "t")
        await gateway.call("GetItem", GET)
    assert server.keys == ["OLD", "OLD", "NEW"]


async def test_session_serves_the_content_bucket_and_the_profile(aws_environment: AwsEnvironment) -> None:
    aws_environment.write("[profile crawler]\nregion = eu-north-1\n")
    config = local_config("http://127.0.0.1:1", access_key_id=None, secret_access_key=None, region=None)
    for session in (aioboto3.Session(profile_name="crawler"), AioSession(profile="crawler")):
        backend = DynamoDBBackend(config.model_copy(update={"content_bucket": "b"}), session=session)
        assert backend.find_destination().region_source == "profile 'crawler'"
        bucket = backend._rooms.bucket.gateway
        assert bucket is not None
        await bucket.open()
        assert bucket.find_destination().region == "eu-north-1"
        await bucket.close()


def test_session_of_another_kind_or_beside_other_credentials_is_refused() -> None:
    wrong: Any = boto3.Session()
    with pytest.raises(InvalidArgumentError, match=r"session: must be .* aioboto3 .*, not a boto3\.session"):
        DynamoDBBackend(DynamoDBConfig(), session=wrong)
    other: dict[str, Any] = {"profile": "p"}
    for settings in (other, STATIC):
        with pytest.raises(InvalidArgumentError, match="session: has its own credentials"):
            connect(session=aioboto3.Session(), **settings)
