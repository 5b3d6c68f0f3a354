"""What can be wrong between here and a bucket, looked at one thing after the other; nothing of it stays."""

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from mstar.errors import MstarError, StorageError
from mstar.storage.probe import PREFIX
from mstar.storage.s3_client import connect, session
from mstar.storage.s3_faults import Place, explaining
from mstar.storage.s3_identity import source

_NOTICED, _WRONG = 5.0, 60.0  # seconds by which clocks differ
_LOCAL = {"localhost", "127.0.0.1", "::1"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing looked at: what was found, what to do about it, and the error it is if it is wrong."""

    what: str
    found: str
    advice: str = ""
    error: MstarError | None = None


def check_bucket(url: str) -> Iterator[Check]:
    """Credentials, endpoint, bucket, clock, uploads in parts, versioning; ends with the first that stops the rest."""
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    at = "credentials"
    try:
        yield _identity(bucket)
        at = "bucket"
        with explaining(Place(bucket, None), "use", url):
            client = connect()
        place = Place(bucket, client.meta.endpoint_url)
        yield _endpoint(client, place)
        with explaining(place, "use", url):
            sent = time.time()
            # The answer to HEAD would not say what is wrong.
            answer = client.list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
            seconds = time.time() - sent
        yield Check(what="bucket", found=f"{bucket} answers within {seconds * 1000:.0f} ms")
        yield _clock(answer, sent + seconds / 2)
        key = f"{prefix}/{PREFIX}{secrets.token_hex(8)}".lstrip("/")
        with explaining(place, "begin and abort an upload to", url):
            yield _parts(client, bucket, key)
    except MstarError as error:
        yield Check(what=at, found=url, error=error)
        return
    yield from _versions(client, bucket)


def _identity(bucket: str) -> Check:
    with explaining(Place(bucket, None), "use", f"s3://{bucket}"):
        found = session().get_credentials()
        if found is None:
            raise NoCredentialsError
        found.get_frozen_credentials()  # a role is asked for here
    return Check(what="credentials", found=f"from {source(found.method)}")


def _endpoint(client: Any, place: Place) -> Check:
    parts = urlsplit(client.meta.endpoint_url)
    plain = parts.scheme == "http" and parts.hostname not in _LOCAL
    return Check(
        what="endpoint",
        found=f"{place.server}, region {client.meta.region_name}",
        advice="plain http: whoever sees the network's traffic reads what is stored"
        if plain
        else "",
    )


def _clock(answer: dict[str, Any], here: float) -> Check:
    told = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if not told:
        return Check(what="clock", found="the server does not tell its time")
    # The server tells whole seconds.
    ahead = here - (parsedate_to_datetime(told).timestamp() + 0.5)
    found = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} the server's"
    advice = "set this machine's clock (NTP): leases and retention compare times, and S3 refuses at 15 minutes"
    if abs(ahead) < _NOTICED:
        return Check(what="clock", found=found)
    error = StorageError(f"the clock here is {found}; {advice}") if abs(ahead) > _WRONG else None
    return Check(what="clock", found=found, advice=advice, error=error)


def _parts(client: Any, bucket: str, key: str) -> Check:
    upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
    client.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
    return Check(what="parts", found="an upload in parts can be begun and aborted")


def _versions(client: Any, bucket: str) -> Iterator[Check]:
    try:
        status = client.get_bucket_versioning(Bucket=bucket).get("Status")
    except (BotoCoreError, ClientError):
        return  # not every server knows it, nor may everybody ask
    if status == "Enabled":
        yield Check(
            what="versions",
            found="the bucket keeps every version",
            advice="what `mstarctl gc` deletes takes space until a lifecycle rule expires noncurrent versions",
        )
