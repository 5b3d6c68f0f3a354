"""What the S3 store does when the network or the server does not do as it should."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ConnectionClosedError, ResponseStreamingError

from mstar.errors import NotFound, SpecError, StorageError
from mstar.storage.s3 import S3Store
from tests.storage.meddler import SECRET, Meddler, refusal


def test_a_create_whose_answer_was_lost_has_won(meddle):
    def lose_the_answer(real, **request):
        real(**request)
        raise ConnectionClosedError(endpoint_url="http://server")

    store = meddle("put_object", lose_the_answer)
    assert store.create("a", b"ours")
    assert store.get("a") == b"ours"


def test_a_create_without_an_answer_that_another_won_is_lost(meddle, s3_client):
    def be_late(real, **request):
        s3_client.put_object(Bucket=request["Bucket"], Key=request["Key"], Body=b"theirs")
        raise ConnectionClosedError(endpoint_url="http://server")

    store = meddle("put_object", be_late)
    assert not store.create("a", b"ours")
    assert store.get("a") == b"theirs"


def test_a_create_that_did_not_arrive_is_an_error_and_no_defeat(meddle):
    def break_off(real, **request):
        raise ConnectionClosedError(endpoint_url="http://server")

    store = meddle("put_object", break_off)
    with pytest.raises(
        StorageError, match=r"cannot create a in s3://runs/.*: http://server cannot be reached"
    ):
        store.create("a", b"ours")
    assert store.size("a") is None


def test_a_create_refused_because_of_its_own_first_try_has_won(meddle):
    def try_twice(real, **request):
        real(**request)
        raise refusal("PreconditionFailed", 412, retries=1)

    assert meddle("put_object", try_twice).create("a", b"ours")


def test_a_create_refused_after_a_retry_because_of_another_is_lost(meddle, s3_client):
    def be_late(real, **request):
        s3_client.put_object(Bucket=request["Bucket"], Key=request["Key"], Body=request["Body"])
        raise refusal("PreconditionFailed", 412, retries=1)

    assert not meddle("put_object", be_late).create("a", b"the same bytes")


def test_a_create_that_meets_another_is_tried_again(meddle):
    answers = [refusal("ConditionalRequestConflict", 409)] * 3

    def conflict(real, **request):
        if answers:
            raise answers.pop()
        return real(**request)

    store = meddle("put_object", conflict)
    assert store.create("a", b"ours")
    assert not store.create("a", b"again")


def test_a_create_that_always_meets_another_gives_up(meddle):
    def conflict(real, **request):
        raise refusal("ConditionalRequestConflict", 409)

    with pytest.raises(StorageError, match="ConditionalRequestConflict"):
        meddle("put_object", conflict).create("a", b"")


def test_a_broken_stream_goes_on_at_the_byte_where_it_broke(meddle):
    class Breaking:
        def __init__(self, body: Any) -> None:
            self.body, self.left = body, 1000

        def readinto(self, buffer: Any) -> int:
            if not self.left:
                raise ResponseStreamingError(error="connection reset")
            count = int(self.body.readinto(memoryview(buffer)[: self.left]))
            self.left -= count
            return count

        def close(self) -> None:
            self.body.close()

    ranges = []

    def break_after_1000(real, **request):
        ranges.append(request.get("Range"))
        answer = real(**request)
        return answer | {"Body": Breaking(answer["Body"])}

    store = meddle("get_object", break_after_1000)
    data = bytes(range(250)) * 14
    store.put("a", data)
    with store.open("a", start=5, length=3000) as stream:
        assert stream.read() == data[5:3005]
    assert ranges == ["bytes=5-3004", "bytes=1005-3004", "bytes=2005-3004"]


def test_a_stream_that_broke_never_goes_on_with_another_version(meddle):
    class Broken:
        def readinto(self, buffer: Any) -> int:
            store.put("a", b"2" * 100)
            raise ResponseStreamingError(error="connection reset")

        def close(self) -> None:
            pass

    def break_first(real, **request):
        answer = real(**request)
        return answer if "IfMatch" in request else answer | {"Body": Broken()}

    store = meddle("get_object", break_first)
    store.put("a", b"1" * 100)
    with (
        pytest.raises(StorageError, match="somebody replaced the object"),
        store.open("a") as stream,
    ):
        stream.read()


def test_a_failed_upload_leaves_nothing(s3_environment, s3_client, tmp_path: Path):
    def fill_up(**_: Any) -> None:
        raise refusal("XMinioStorageFull", 507)

    (tmp_path / "large").write_bytes(b"0" * (40 << 20))
    store = S3Store("s3://runs/failed")
    store._client.meta.events.register("before-call.s3.UploadPart", fill_up)
    with pytest.raises(
        StorageError,
        match=r"cannot write a in s3://runs/.* has no space left \(XMinioStorageFull\)",
    ):
        store.upload("a", tmp_path / "large", move=True)
    assert (tmp_path / "large").exists()
    assert store.size("a") is None
    assert "Uploads" not in s3_client.list_multipart_uploads(Bucket="runs")


def test_a_failed_download_leaves_neither_file_nor_temporary(meddle, tmp_path: Path):
    def fail_behind_the_start(real, **request):
        if request["Range"].startswith("bytes=0-"):
            return real(**request)
        raise refusal("InternalError", 500)

    store = meddle("get_object", fail_behind_the_start)
    store.put("a", b"0" * (40 << 20))
    with pytest.raises(StorageError, match=r"cannot read a in .* failing or overloaded"):
        store.download("a", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_download_never_mixes_two_versions(meddle, s3_client, tmp_path: Path):
    def replace_after_the_start(real, **request):
        answer = real(**request)
        if request["Range"].startswith("bytes=0-"):
            s3_client.put_object(
                Bucket=request["Bucket"], Key=request["Key"], Body=b"2" * (40 << 20)
            )
        return answer

    store = meddle("get_object", replace_after_the_start)
    store.put("a", b"1" * (40 << 20))
    with pytest.raises(StorageError, match="somebody replaced the object"):
        store.download("a", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_download_onto_a_full_disk_says_so(s3_store, monkeypatch, tmp_path: Path):
    def fill_up(*_: Any) -> int:
        raise OSError(28, "No space left on device")

    s3_store.put("a", b"0" * (40 << 20))
    monkeypatch.setattr("os.pwrite", fill_up)
    with pytest.raises(StorageError, match=f"cannot write {tmp_path}/target: the disk is full"):
        s3_store.download("a", tmp_path / "target")
    assert list(tmp_path.iterdir()) == []


def test_a_completed_upload_whose_answer_was_lost_is_no_failure(s3_store, tmp_path: Path):
    def lose_the_answer(real, **request):
        real(**request)
        raise refusal("NoSuchUpload", 404, retries=1)

    (tmp_path / "large").write_bytes(b"1" * (40 << 20))
    slow = Meddler(s3_store._client, "complete_multipart_upload", lose_the_answer)
    vars(s3_store)["_slow_client"] = slow
    s3_store.upload("a", tmp_path / "large")
    assert s3_store.size("a") == 40 << 20


def test_an_upload_that_another_ended_is_a_failure(s3_store, tmp_path: Path):
    def find_none(real, **request):
        raise refusal("NoSuchUpload", 404)

    s3_store.put("a", b"older")
    (tmp_path / "large").write_bytes(b"1" * (40 << 20))
    vars(s3_store)["_slow_client"] = Meddler(
        s3_store._client, "complete_multipart_upload", find_none
    )
    with pytest.raises(StorageError, match=r"cannot write a in .*NoSuchUpload"):
        s3_store.upload("a", tmp_path / "large")
    assert s3_store.get("a") == b"older"
    assert list(s3_store.remnants()) == []


def test_servers_other_than_amazons_get_no_checksums_that_they_may_not_know(
    s3_environment, monkeypatch
):
    config = S3Store("s3://runs")._client.meta.config
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    config = S3Store("s3://runs")._client.meta.config
    assert config.request_checksum_calculation == "when_supported"


def test_what_a_web_console_stores_for_a_folder_is_no_key(s3_store, s3_client):
    at = s3_store._at("a/b")
    s3_client.put_object(Bucket=at["Bucket"], Key=at["Key"].removesuffix("b"), Body=b"")
    s3_store.put("a/b", b"")
    assert list(s3_store.list("")) == ["a/b"]


def test_a_bucket_without_prefix_is_a_store(s3_environment, s3_client):
    store = S3Store("s3://runs/")
    assert store.url == "s3://runs"
    store.put("alone/a", b"data")
    assert list(store.list("alone")) == ["alone/a"]
    store.delete("alone/a")


@pytest.mark.parametrize(
    "url", ["s3://", "s3:///a", f"s3://key:{SECRET}@bucket/a", "s3://bucket/a?b=c", "http://a"]
)
def test_a_malformed_url_is_refused(url: str):
    with pytest.raises(SpecError, match="not of the form s3://bucket/prefix") as caught:
        S3Store(url)
    assert SECRET not in str(caught.value)


def test_a_store_travels_to_another_process_without_its_connection(s3_store):
    import pickle

    s3_store.put("a", b"data")
    assert pickle.loads(pickle.dumps(s3_store)).get("a") == b"data"  # noqa: S301 - our own bytes


def test_a_missing_key_is_told_as_such_after_the_bucket_was_seen(s3_store):
    for _ in range(2):
        assert s3_store.size("a") is None
        with pytest.raises(NotFound):
            s3_store.get("a")


def test_opening_a_folder_loads_neither_the_cloud_nor_the_table_library():
    program = (
        "import sys, mstar.storage.open, mstar.storage.artifacts, mstar.storage.lease, mstar.storage.tables; "
        "mstar.storage.open.open_store('/nowhere'); "
        "print([m for m in ('boto3', 'botocore', 'pyarrow', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
