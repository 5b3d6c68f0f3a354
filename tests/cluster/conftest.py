"""What tests on a real cluster share. Without a cluster they are skipped, and say how to start one.

They run on one worker, one after the other (tests/conftest.py): the S3 server that one of them stops is the others',
too.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster import running
from tests.cluster.lab import Lab
from tests.cluster.running import Cluster


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.cluster)


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    """A cluster that answers."""
    try:
        return running.find()
    except running.NoCluster as reason:
        pytest.skip(str(reason))


def _namespace(cluster: Cluster) -> Iterator[str]:
    name = f"mstar-test-{uuid.uuid4().hex[:8]}"
    cluster.kubectl("create", "namespace", name)
    try:
        cluster.kubectl("label", "namespace", name, "pod-security.kubernetes.io/enforce=restricted")
        yield name
    finally:
        # pytest shows this beside a failed test.
        for what in ("jobs,pods", "events"):
            print(cluster.kubectl("get", what, f"--namespace={name}", "--output=wide"))  # noqa: T201
        # Jobs first: a pod of an indexed Job that failed is kept until its replacement is made, and in a namespace that
        # is going nothing is made any more.
        cluster.kubectl("delete", "jobs", "--all", f"--namespace={name}", timeout=200)
        cluster.kubectl("delete", "namespace", name, "--wait", "--timeout=180s", timeout=200)


@pytest.fixture
def namespace(cluster: Cluster) -> Iterator[str]:
    """A fresh namespace that enforces Pod Security "restricted", gone after the test."""
    yield from _namespace(cluster)


@pytest.fixture(scope="module")
def module_namespace(cluster: Cluster) -> Iterator[str]:
    """The same, for all tests of a module."""
    yield from _namespace(cluster)


@pytest.fixture(scope="session")
def s3(cluster: Cluster) -> Iterator[Any]:
    """A boto3 client of the S3 server, which runs when the test begins."""
    if not cluster.s3_endpoint:
        pytest.skip("no S3 server: name one in MSTAR_TEST_S3_ENDPOINT, or `make cluster`")
    client = cluster.s3()
    yield client
    client.close()


@pytest.fixture
def s3_running(cluster: Cluster) -> Iterator[None]:
    """For tests that stop the S3 server: it runs again afterwards, whatever they did."""
    if not cluster.owns_s3:
        pytest.skip("this S3 server cannot be stopped from here; `make cluster` has one that can")
    yield
    cluster.start_s3()


@pytest.fixture
def bucket(s3: Any) -> Iterator[str]:
    """A fresh bucket, emptied and deleted after the test."""
    name = f"mstar-test-{uuid.uuid4().hex[:8]}"
    s3.create_bucket(Bucket=name)
    yield name
    for upload in s3.list_multipart_uploads(Bucket=name).get("Uploads", []):
        s3.abort_multipart_upload(Bucket=name, Key=upload["Key"], UploadId=upload["UploadId"])
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=name):
        objects = [{"Key": entry["Key"]} for entry in page.get("Contents", [])]
        if objects:
            s3.delete_objects(Bucket=name, Delete={"Objects": objects})
    s3.delete_bucket(Bucket=name)


@pytest.fixture(scope="session")
def kit(cluster: Cluster) -> str:
    """The harness's own small image, whose commands are in `harness/kit/main.go`."""
    image = cluster.settings.get("MSTAR_TEST_KIT", "")
    if not image:
        pytest.skip("the harness's own image is only in the cluster of `make cluster`")
    return image


@pytest.fixture(scope="module")
def lab(cluster: Cluster, s3: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A restricted namespace with the chart installed in it by helm, and a bucket: what runs need."""
    if not cluster.images:
        pytest.skip("the cluster has no stage images: `make cluster` builds and loads them")
    for namespace in _namespace(cluster):
        bucket = f"{namespace}-runs"
        s3.create_bucket(Bucket=bucket)
        found = Lab(
            cluster=cluster,
            namespace=namespace,
            bucket=bucket,
            folder=tmp_path_factory.mktemp("lab"),
        )
        found.install()
        yield found
