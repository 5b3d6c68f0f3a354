"""Servers that speak S3, on this machine, for as long as the tests run: moto, and VersityGW where it is to be found."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from mstar.storage.s3 import S3Store
from tests.versitygw import ABSENT, VersityGW, program


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3_environment(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")


@pytest.fixture(scope="session")
def s3_client(s3_endpoint: str) -> Any:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
        region_name="us-east-1",
    )
    client.create_bucket(Bucket="runs")
    return client


@pytest.fixture(scope="session")
def s3_connection(s3_endpoint: str) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
        return S3Store("s3://runs")._client


@pytest.fixture
def s3_store(s3_environment: None, s3_client: Any, s3_connection: Any) -> S3Store:
    store = S3Store(f"s3://runs/{uuid.uuid4().hex}/below", sleep=lambda seconds: None)
    vars(store)["_client"] = s3_connection  # making one for every test takes longer than the tests
    return store


@pytest.fixture(scope="session")
def real_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[VersityGW]:
    """VersityGW with a bucket ``runs``; tests that use it are skipped where it is not to be found."""
    import boto3

    found = program()
    if found is None:
        pytest.skip(ABSENT)
    with VersityGW(found, tmp_path_factory.mktemp("versitygw")) as server:
        given = server.environment
        boto3.client(
            "s3",
            endpoint_url=given["AWS_ENDPOINT_URL"],
            aws_access_key_id=given["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=given["AWS_SECRET_ACCESS_KEY"],
            region_name=given["AWS_DEFAULT_REGION"],
        ).create_bucket(Bucket="runs")
        yield server


@pytest.fixture
def real_store(real_server: VersityGW, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store of its own on the real server."""
    for name, value in real_server.environment.items():
        monkeypatch.setenv(name, value)
    return S3Store(f"s3://runs/{uuid.uuid4().hex}/below")
