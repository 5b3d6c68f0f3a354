"""How an S3 server is reached: with credentials from the SDK's own chain, and with patience that ends.

The SDK alone gives up within a second on a server that is being started again, and waits minutes for one that takes a
request and never answers. Here both are given the same ``PATIENCE``.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from mstar.errors import StoreRefused
from mstar.storage.s3_identity import given_twice

PATIENCE = 15.0
"""Seconds for which a request is tried again while the server is not there or says that it is overloaded."""

_OPTIONS: dict[str, Any] = {
    "connect_timeout": 4,
    "read_timeout": 12,
    "user_agent_appid": "mstar",
}
_POOL = 16
_RETRIES = {"mode": "standard", "total_max_attempts": 5}
# The token service that the SDK asks by itself where a role is used is no business of ``_retry_after``.
_TOKEN_RETRIES = {"mode": "standard", "total_max_attempts": 2}
# A server may put a large object together from its parts for minutes before it answers.
_SLOW: dict[str, Any] = {"read_timeout": 900}
# Newer boto3 adds checksums by default that many servers other than Amazon's refuse or store as part of the data.
_FOREIGN: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_STARTED = "mstar_started"
_OVERLOADED = {500, 502, 503, 504}
_PASSING = (ConnectionClosedError, ConnectTimeoutError, EndpointConnectionError, ReadTimeoutError)
_LONGEST_PAUSE = 3.0
_since: ContextVar[float | None] = ContextVar("mstar_s3_since", default=None)


def session() -> Any:
    """A session of the SDK; StoreRefused when the environment gives two identities at once."""
    if problem := given_twice():
        raise StoreRefused(problem)
    inner = botocore.session.Session()
    inner.set_default_client_config(Config(**_OPTIONS, retries=_TOKEN_RETRIES))
    return boto3.session.Session(botocore_session=inner)


def connect(*, slow: bool = False) -> Any:
    """A client of S3 as the environment describes it; nothing is sent yet. ``slow`` waits long for an answer."""
    opened = session()
    options = {"max_pool_connections": _POOL, "retries": _RETRIES} | (_SLOW if slow else {})
    client = opened.client("s3", config=Config(**options))
    if not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(_AMAZON):
        client = opened.client("s3", config=Config(**options, **_FOREIGN))
    client.meta.events.register("before-call.s3", _note_start)
    client.meta.events.register_first("needs-retry.s3", _retry_after)
    return client


@contextmanager
def one_patience() -> Iterator[None]:
    """All requests of the block together are tried again for no longer than one would be alone."""
    token = _since.set(time.monotonic())
    try:
        yield
    finally:
        _since.reset(token)


def _note_start(params: dict[str, Any], **_: object) -> None:
    params["context"][_STARTED] = _since.get() or time.monotonic()


def _retry_after(
    attempts: int,
    response: tuple[Any, Any] | None,
    caught_exception: Exception | None,
    request_dict: dict[str, Any],
    **_: object,
) -> float | bool | None:
    """Seconds to wait before the next try; False for no further one; None leaves it to the SDK."""
    overloaded = response is not None and response[0].status_code in _OVERLOADED
    if not (overloaded or isinstance(caught_exception, _PASSING)):
        return None
    waited = time.monotonic() - request_dict["context"][_STARTED]
    return False if waited >= PATIENCE else min(0.2 * 2 ** (attempts - 1), _LONGEST_PAUSE)
