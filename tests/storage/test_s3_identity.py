"""What an S3 server refuses is told in one sentence, and a credential is told to nobody."""

import logging
import pickle
import re
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError

from mstar.errors import MstarError, StorageError, StoreRefused
from mstar.storage import s3_client as s3_client_module
from mstar.storage.artifacts import ArtifactWriter
from mstar.storage.probe import probe
from mstar.storage.s3 import S3Store
from mstar.storage.s3_checks import check_bucket
from mstar.storage.s3_identity import given_twice, source
from tests.storage.meddler import SECRET, refusal


@pytest.mark.parametrize(
    "use",
    [
        lambda store, path: store.get("a"),
        lambda store, path: store.open("a"),
        lambda store, path: store.put("a", b""),
        lambda store, path: store.create("a", b""),
        lambda store, path: store.size("a"),
        lambda store, path: store.delete("a"),
        lambda store, path: list(store.list("")),
        lambda store, path: store.upload("a", path),
        lambda store, path: store.download("a", path.with_name("target")),
    ],
    ids=["get", "open", "put", "create", "size", "delete", "list", "upload", "download"],
)
def test_a_missing_bucket_is_named(s3_store, tmp_path: Path, use: Callable[[Any, Path], object]):
    path = tmp_path / "file"
    path.write_bytes(b"data")
    store = S3Store("s3://absent/prefix")
    vars(store)["_client"] = s3_store._client
    with pytest.raises(StoreRefused, match=r"has no bucket 'absent'. Create it"):
        use(store, path)


@pytest.mark.parametrize(
    ("code", "status", "kind", "words"),
    [
        ("AccessDenied", 403, StoreRefused, "refuses access to bucket 'runs'"),
        ("403", 403, StoreRefused, "refuses access to bucket 'runs'"),
        ("InvalidAccessKeyId", 403, StoreRefused, "does not accept the credentials"),
        ("SignatureDoesNotMatch", 403, StoreRefused, "does not accept the credentials"),
        ("ExpiredToken", 400, StoreRefused, "does not accept the credentials"),
        ("PermanentRedirect", 301, StoreRefused, "is in another region"),
        ("SlowDown", 503, StorageError, "failing or overloaded"),
        ("NotImplemented", 501, StorageError, "needs conditional writes"),
        ("Unheard", 418, StorageError, "answered Unheard"),
    ],
)
def test_each_refusal_is_one_sentence_that_says_what_to_do(
    meddle, code: str, status: int, kind: type[MstarError], words: str
):
    def refuse(real, **request):
        raise refusal(code, status)

    store = meddle("put_object", refuse)
    with pytest.raises(kind, match=re.escape(words)) as caught:
        store.put("steps/a", b"")
    assert str(caught.value).startswith(f"cannot write steps/a in {store.url}: ")
    assert "\n" not in str(caught.value)


def test_an_endpoint_that_nobody_answers_at_is_named_without_secrets(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{SECRET}@127.0.0.1:9")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setattr(s3_client_module, "PATIENCE", 0.0)
    with pytest.raises(StorageError, match=r"http://127.0.0.1:9 cannot be reached") as caught:
        S3Store("s3://runs/x").get("a")
    assert SECRET not in str(caught.value)


def test_missing_credentials_are_named(s3_environment, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(StoreRefused, match=r"no usable credentials .*AWS_ACCESS_KEY_ID"):
        S3Store("s3://runs/x").get("a")


def test_an_absent_profile_is_named(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_PROFILE", "absent")
    with pytest.raises(StoreRefused, match="absent"):
        S3Store("s3://runs/x").get("a")


def test_an_endpoint_that_is_no_address_is_named_without_secrets(s3_environment, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"user:{SECRET}@nonsense")
    with pytest.raises(StorageError, match="AWS_ENDPOINT_URL") as caught:
        S3Store("s3://runs/x").get("a")
    assert SECRET not in str(caught.value)


ROLES = [
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
]


@pytest.mark.parametrize("role", ROLES)
def test_a_static_key_and_a_role_together_are_refused(s3_environment, monkeypatch, role: str):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv(role, "/var/run/secrets/token")
    with pytest.raises(
        StoreRefused, match=f"two identities at once: .*AWS_ACCESS_KEY_ID.*{role}"
    ) as caught:
        S3Store("s3://runs/x").get("a")
    assert SECRET not in str(caught.value)
    assert "leave out the Secret" in str(caught.value)


def test_a_key_or_a_role_alone_is_fine():
    assert given_twice({"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}) is None
    for role in ROLES:
        assert given_twice({role: "x"}) is None
        assert given_twice({role: "x", "AWS_ACCESS_KEY_ID": ""}) is None
    assert "static key" in source("env")
    assert source("some-new-way") == "some-new-way"


def test_a_token_service_that_refuses_the_role_is_not_told_as_a_bucket(meddle):
    def refuse(real, **request):
        error = {"Error": {"Code": "AccessDenied"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
        raise ClientError(error, "AssumeRoleWithWebIdentity")

    with pytest.raises(
        StoreRefused, match=r"token service does not give the role \(AccessDenied\)"
    ):
        meddle("put_object", refuse).put("a", b"")


def test_a_token_service_that_does_not_answer_is_named_instead_of_the_store(meddle):
    def wait(real, **request):
        raise ConnectTimeoutError(endpoint_url=f"https://user:{SECRET}@sts.example/")

    with pytest.raises(StorageError, match=r"https://sts\.example cannot be reached") as caught:
        meddle("put_object", wait).put("a", b"")
    assert SECRET not in str(caught.value)


@pytest.fixture
def role(s3_environment, monkeypatch, tmp_path: Path) -> None:
    """What a cluster puts into a pod whose service account has a role."""
    (tmp_path / "token").write_text(SECRET)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/mstar")


def test_a_role_by_web_identity_is_used_and_named(role, s3_client):
    store = S3Store("s3://runs/role")
    store.put("a", b"data")
    assert store.get("a") == b"data"
    found = {check.what: check for check in check_bucket(store.url)}
    assert found["credentials"].found == (
        "from a role by web identity token (AWS_WEB_IDENTITY_TOKEN_FILE)"
    )
    assert not any(check.error for check in found.values())
    assert SECRET not in str(found)


def test_a_token_service_that_says_nothing_is_told_before_long(role, monkeypatch):
    monkeypatch.setitem(s3_client_module._OPTIONS, "read_timeout", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", endpoint)
        begin = time.monotonic()
        with pytest.raises(StorageError, match=f"{endpoint} cannot be reached"):
            S3Store("s3://runs/role").put("a", b"")
        assert time.monotonic() - begin < 55  # the SDK waits a minute for one answer


def test_of_many_threads_that_begin_at_once_one_connects(s3_environment, s3_client, monkeypatch):
    made = []

    def connect() -> Any:
        made.append(1)
        time.sleep(0.05)
        return s3_client

    monkeypatch.setattr("mstar.storage.s3.connect", connect)
    store = S3Store("s3://runs/threads")
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: store.size("a"), range(8))) == {None}
    assert len(made) == 1


def test_no_secret_reaches_keys_bytes_logs_messages_or_what_is_printed(
    s3_environment, s3_client, monkeypatch, caplog, capfd, tmp_path: Path
):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, f"{SECRET}-{name}")
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, "mstar")
    store = S3Store("s3://runs/secrets")
    (tmp_path / "file").write_bytes(b"data")
    for attempt in ("1", "2"):
        with ArtifactWriter(store, "5" * 64, attempt) as writer:
            writer.add_file("a", tmp_path / "file")
            writer.commit(versions={"mstar": "1"})
    probe(store)
    told = [repr(store), store.url, str(pickle.dumps(store)), repr(store._source("a"))]
    for broken in ("s3://absent/x", "s3://Not_A_Bucket/x"):
        with pytest.raises(MstarError) as caught:
            S3Store(broken).put("a", b"")
        told += [str(caught.value), repr(caught.value)]
    told += list(store.list(""))
    for key in store.list(""):
        answer = s3_client.get_object(Bucket="runs", Key=f"secrets/{key}")
        told += [str(answer["Metadata"]), answer["Body"].read().decode()]
    printed = capfd.readouterr()
    assert SECRET not in "\n".join([*told, caplog.text, printed.out, printed.err])
