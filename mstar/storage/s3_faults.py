"""What an S3 server's refusals mean, in one sentence each, without a secret in it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from boto3.exceptions import Boto3Error
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's name for it
    CredentialRetrievalError,
    HTTPClientError,
    NoAuthTokenError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)

from mstar.errors import MstarError, StorageError, StoreRefused

_NO_IDENTITY = (
    CredentialRetrievalError,
    NoAuthTokenError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSOError,
    TokenRetrievalError,
)
_NO_BUCKET = "{server} has no bucket {bucket!r}. Create it, or correct the store's name"
_WRONG_IDENTITY = "{server} does not accept the credentials ({code}). Check the key, its expiry and the clock here"
_REFUSED = (
    "{server} refuses access to bucket {bucket!r} ({code}). The credentials need GetObject, PutObject, DeleteObject, "
    "AbortMultipartUpload and ListBucket on it"
)
_ELSEWHERE = (
    "bucket {bucket!r} is in another region ({code}). Set AWS_DEFAULT_REGION to the bucket's"
)
_FULL = "{server} has no space left ({code}). Free some, then resume: nothing that was committed is lost"
_BUSY = (
    "{server} is failing or overloaded ({code}). Try again later; resume goes on where it stopped"
)
_OLD = (
    "{server} does not know the request ({code}). The store needs conditional writes (If-None-Match on PutObject): "
    "use a newer server"
)
_REASONS = {
    "301": _ELSEWHERE,
    "403": _REFUSED,
    "500": _BUSY,
    "501": _OLD,
    "502": _BUSY,
    "503": _BUSY,
    "504": _BUSY,
    "507": _FULL,
    "AccessDenied": _REFUSED,
    "AllAccessDisabled": _REFUSED,
    "AuthorizationHeaderMalformed": _ELSEWHERE,
    "ExpiredToken": _WRONG_IDENTITY,
    "IllegalLocationConstraintException": _ELSEWHERE,
    "InternalError": _BUSY,
    "InvalidAccessKeyId": _WRONG_IDENTITY,
    "InvalidToken": _WRONG_IDENTITY,
    "NoSuchBucket": _NO_BUCKET,
    "NotImplemented": _OLD,
    "PermanentRedirect": _ELSEWHERE,
    "PreconditionFailed": "somebody replaced the object meanwhile ({code}). Try again",
    "QuotaExceeded": _FULL,
    "RequestTimeTooSkewed": _WRONG_IDENTITY,
    "RequestTimeout": _BUSY,
    "ServiceUnavailable": _BUSY,
    "SignatureDoesNotMatch": _WRONG_IDENTITY,
    "SlowDown": _BUSY,
    "XAdminUserNotFound": _WRONG_IDENTITY,
    "XMinioAdminBucketQuotaExceeded": _FULL,
    "XMinioStorageFull": _FULL,
}
# What no later try changes.
_REFUSALS = {_NO_BUCKET, _WRONG_IDENTITY, _REFUSED, _ELSEWHERE}
_NO_ROLE = "the token service does not give the role ({code}). Check the role's trust policy and the service account"
_UNKNOWN = "{server} answered {code}. Try again, or look at the server's log"


@dataclass(frozen=True, slots=True)
class Place:
    """Which bucket, and at which server (None before that is known)."""

    bucket: str
    endpoint: str | None

    @property
    def server(self) -> str:
        """The server's address without a user or password that somebody may have put into it."""
        return _address(self.endpoint) or "the S3 server"


@contextmanager
def explaining(place: Place, doing: str, what: str) -> Iterator[None]:
    """Run the block; what boto3 raises in it becomes one error about ``what``.

    ``StoreRefused`` when the server says no and would again, ``StorageError`` otherwise.
    """
    try:
        yield
    except (BotoCoreError, Boto3Error, ClientError, ValueError) as error:
        kind: type[MstarError] = StoreRefused if _is_refusal(error) else StorageError
        raise kind(f"cannot {doing} {what}: {_reason(error, place)}") from error


def code_of(error: Exception) -> str:
    """The server's own word for what went wrong; empty when it gave none."""
    return (
        str(error.response.get("Error", {}).get("Code", ""))
        if isinstance(error, ClientError)
        else ""
    )


def tries_before(error: Exception) -> int:
    """How often the same request had been sent before the one that the server refused."""
    metadata = error.response.get("ResponseMetadata", {}) if isinstance(error, ClientError) else {}
    return int(metadata.get("RetryAttempts", 0))


def unsure(error: Exception) -> bool:
    """Whether the request may have been carried out although it failed."""
    return _status(error) >= 500 or unreachable(error)


def unreachable(error: BaseException) -> bool:
    """Whether no answer came from the server at all."""
    return isinstance(error, (HTTPClientError, ConnectionError))


def _told(place: Place, code: str, status: int = 0) -> str:
    return _text(code, status).format(server=place.server, bucket=place.bucket, code=code)


def _text(code: str, status: int) -> str:
    """What a server's word means; a word unknown here at least says by its status whether it is a refusal."""
    return _REASONS.get(code) or (_REFUSED if status in {401, 403} else _UNKNOWN)


def _status(error: Exception) -> int:
    metadata = error.response.get("ResponseMetadata", {}) if isinstance(error, ClientError) else {}
    return int(metadata.get("HTTPStatusCode", 0))


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, _NO_IDENTITY) or _is_from_token_service(error):
        return True
    return _text(code_of(error), _status(error)) in _REFUSALS


def _is_from_token_service(error: Exception) -> bool:
    return isinstance(error, ClientError) and error.operation_name.startswith("AssumeRole")


def _reason(error: Exception, place: Place) -> str:
    if code := code_of(error):
        if _is_from_token_service(error):
            return _NO_ROLE.format(code=code)
        return _told(place, code, _status(error))
    # no password of an address
    sentence = re.sub(r"\S*@", "", " ".join(str(error).split())).rstrip(".")
    if isinstance(error, _NO_IDENTITY):
        return (
            f"no usable credentials ({sentence}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, "
            "or give the machine a role"
        )
    if unreachable(error):
        asked = _address(getattr(error, "kwargs", {}).get("endpoint_url")) or place.server
        return f"{asked} cannot be reached ({type(error).__name__}). Check AWS_ENDPOINT_URL and the network"
    if isinstance(error, ParamValidationError):
        return f"{place.bucket!r} or the key is not a name that S3 allows. Correct the store's name"
    if isinstance(error, ValueError):
        return f"{sentence}. Check AWS_ENDPOINT_URL and the AWS configuration"
    return f"{type(error).__name__}: {sentence}. Try again"


def _address(url: str | None) -> str:
    """A URL's scheme and host; empty when it has none."""
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}" if parts.netloc else ""
