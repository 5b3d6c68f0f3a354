"""How an S3 server is reached: with credentials from the SDK's own chain, and with patience that ends.

The SDK alone would wait minutes for a server that takes a request and never answers. Here no request is tried again
once ``PATIENCE`` seconds have gone by without an answer, so a dead server is told within about half a minute.
"""

import time
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.session
from botocore.config import Config

from mstar.errors import StorageError
from mstar.storage.s3_identity import given_twice

PATIENCE = 20.0
"""Seconds after which a request that had no answer yet is not tried again."""

_OPTIONS: dict[str, Any] = {
    "connect_timeout": 5,
    "read_timeout": 15,
    "retries": {"mode": "standard", "total_max_attempts": 5},
    "user_agent_appid": "mstar",
}
_POOL = 16
# A server may put a large object together from its parts for minutes before it answers.
_SLOW: dict[str, Any] = {"read_timeout": 900}
# Newer boto3 adds checksums by default that many servers other than Amazon's refuse or store as part of the data.
_FOREIGN: dict[str, Any] = {
    "request_checksum_calculation": "when_required",
    "response_checksum_validation": "when_required",
}
_AMAZON = (".amazonaws.com", ".amazonaws.com.cn")
_STARTED = "mstar_started"


def session() -> Any:
    """A session of the SDK; StorageError when the environment gives two identities at once."""
    if problem := given_twice():
        raise StorageError(problem)
    inner = botocore.session.Session()
    # Also for the token service that the SDK asks on its own where a role is used.
    inner.set_default_client_config(Config(**_OPTIONS))
    return boto3.session.Session(botocore_session=inner)


def connect(*, slow: bool = False) -> Any:
    """A client of S3 as the environment describes it; nothing is sent yet. ``slow`` waits long for an answer."""
    opened = session()
    options = {"max_pool_connections": _POOL} | (_SLOW if slow else {})
    client = opened.client("s3", config=Config(**options))
    if not (urlsplit(client.meta.endpoint_url).hostname or "").endswith(_AMAZON):
        client = opened.client("s3", config=Config(**options, **_FOREIGN))
    client.meta.events.register("before-call.s3", _note_start)
    client.meta.events.register_first("needs-retry.s3", _out_of_patience)
    return client


def _note_start(params: dict[str, Any], **_: object) -> None:
    params["context"][_STARTED] = time.monotonic()


def _out_of_patience(
    request_dict: dict[str, Any], caught_exception: Exception | None, **_: object
) -> bool | None:
    """False: do not try again. None: let the SDK decide."""
    started = request_dict["context"].get(_STARTED, time.monotonic())
    return False if caught_exception and time.monotonic() - started >= PATIENCE else None
