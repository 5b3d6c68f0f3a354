"""A real client of S3, one of whose calls is meddled with."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

SECRET = "s3cr3t-that-nobody-may-see"


class Meddler:
    """The real client, except that ``meddle`` stands in for one of its calls."""

    def __init__(self, client: Any, call: str, meddle: Callable[..., Any]) -> None:
        self._client, self._call, self._meddle = client, call, meddle

    def __getattr__(self, name: str) -> Any:
        real = getattr(self._client, name)
        if name != self._call:
            return real
        return lambda *given, **request: self._meddle(real, *given, **request)


def refusal(code: str, status: int, *, retries: int = 0) -> ClientError:
    metadata = {"HTTPStatusCode": status, "RetryAttempts": retries}
    return ClientError({"Error": {"Code": code}, "ResponseMetadata": metadata}, "Any")
