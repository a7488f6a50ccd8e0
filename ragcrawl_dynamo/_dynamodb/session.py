"""Makes the botocore session and the options of a client, from the settings and from a user's own ones."""

from __future__ import annotations

import copy
from functools import cache
from types import NoneType
from typing import Any, TypeAlias

import aioboto3
from aiobotocore.config import AioConfig
from aiobotocore.session import AioSession
from botocore.config import Config
from botocore.loaders import create_loader

from ragcrawl_dynamo._utils.validation import check_kind
from ragcrawl_dynamo.config import DynamoDBConfig
from ragcrawl_dynamo.errors import InvalidArgumentError

# An aioboto3.Session or an AioSession of aiobotocore, and a Config of botocore. Their packages have no types,
# so that these would be unknown to the type checkers of users. `check_access` checks them.
AwsSession: TypeAlias = Any
ClientConfig: TypeAlias = Any

# Options of botocore that settings choose, and that the gateway and the tuned client rely on.
_CHOSEN = {
    "region_name": "set `region`",
    "connect_timeout": "set `connect_timeout`",
    "read_timeout": "set `read_timeout`",
    "max_pool_connections": "set `max_connections`",
    "retries": "set `retry_attempts` and `call_timeout`",
    "parameter_validation": "leave it out: requests are checked before",
    "user_agent": "set `user_agent_extra`",
    "http_session_cls": "leave it out: the client has its own",
}


def check_access(
    config: DynamoDBConfig, session: AwsSession | None, client_config: ClientConfig | None
) -> None:
    """Checks a session and options of botocore that a user has passed.

    Raises:
        InvalidArgumentError: One has a wrong type, or sets an option that only a setting can set.
    """
    if not isinstance(session, aioboto3.Session | AioSession | NoneType):
        # The usual mistake is a session of boto3, which does not wait without blocking.
        kind = f"{type(session).__module__}.{type(session).__qualname__}"
        raise InvalidArgumentError("session", f"must be a session of aioboto3 or aiobotocore, not a {kind}")
    if session is not None and (config.profile is not None or config.access_key_id is not None):
        raise InvalidArgumentError(
            "session", "has its own credentials: leave profile, access_key_id and secret_access_key unset"
        )
    check_kind("client_config", client_config, Config, NoneType)
    if "ssl_context" in (getattr(client_config, "connector_args", None) or {}):
        raise InvalidArgumentError("client_config", "must not have an ssl_context: set AWS_CA_BUNDLE")
    defaults = AioConfig()
    for name, advice in _CHOSEN.items():
        if getattr(client_config, name, default := getattr(defaults, name)) != default:
            raise InvalidArgumentError("client_config", f"must not set {name}: {advice}")


def make_session(
    config: DynamoDBConfig, user_session: AwsSession | None = None, *, handlers: bool = True
) -> AioSession:
    """Makes a session of botocore for one client. The session of a user is copied, not changed.

    Args:
        config: The settings.
        user_session: A session of the user: its profile, its variables and its event handlers are taken over.
        handlers: Whether to register the handlers that clients need.
    """
    if user_session is not None:
        theirs = _core(user_session)
        events = copy.copy(theirs.get_component("event_emitter"))
        session = AioSession(event_hooks=events, include_builtin_handlers=False)
        for name, value in theirs.instance_variables().items():
            session.set_config_variable(name, value)
        return session
    session = AioSession(profile=config.profile, include_builtin_handlers=handlers)
    # A profile can name service models of its own.
    if config.profile is None:
        session.register_component("data_loader", _loader(session.get_config_variable("data_path")))
    return session


def make_options(
    user_session: AwsSession | None, client_config: ClientConfig | None, **ours: Any
) -> AioConfig:
    """Makes the options of a client: those of the session, then `client_config`, then `ours`."""
    default = None if user_session is None else _core(user_session).get_default_client_config()
    theirs = [options for options in (default, client_config) if options is not None]
    arguments = [args for options in theirs if (args := getattr(options, "connector_args", None))]
    options = AioConfig(arguments[-1] if arguments else None)
    for config in (*theirs, Config(**ours)):
        options = options.merge(config)
    return options


def _core(session: AwsSession) -> AioSession:
    """Returns botocore's session below one of aioboto3, which has no public way to it."""
    return session._session if isinstance(session, aioboto3.Session) else session


@cache
def _loader(data_path: str | None) -> Any:
    """Reads the service models of botocore once a process: that takes 100 ms of CPU for each client."""
    return create_loader(data_path)
