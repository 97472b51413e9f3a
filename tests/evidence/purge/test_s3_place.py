"""The lie: 'deleted', of a bucket that keeps every version; and 'nothing is there', of a store that did not answer."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest
import requests
from botocore.exceptions import ClientError

from erasediff.data.versioning import ForgetStore
from erasediff.errors import BadInput, EraseDiffError, Unreachable
from erasediff.evidence.purge.engine import purge_stores
from erasediff.evidence.purge.places import place_for, remote_store
from erasediff.evidence.purge.s3 import S3Place
from erasediff.records.purging import Seen
from tests.s3 import s3_server

BUCKET = "forget-sets"


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, Any]]:
    """A server whose bucket keeps every version."""
    with s3_server(monkeypatch, BUCKET) as (url, client):
        client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        yield url, client


def fill(client: Any, prefix: str) -> None:
    """Two versions and a marker of one object, one version of another, and an upload that was broken off."""
    for body in (b"one", b"two"):
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/files/a", Body=body)
    client.delete_object(Bucket=BUCKET, Key=f"{prefix}/files/a")
    client.put_object(Bucket=BUCKET, Key=f"{prefix}/files/b", Body=b"three")
    client.create_multipart_upload(Bucket=BUCKET, Key=f"{prefix}/files/c")


def everything(url: str) -> list[tuple[str, str, str]]:
    """All there is, asked through a client that the purge never had."""
    client = boto3.session.Session().client("s3", endpoint_url=url)
    listed = client.list_object_versions(Bucket=BUCKET)
    rows = [(kind, e["Key"], e["VersionId"]) for kind in ("Versions", "DeleteMarkers") for e in listed.get(kind, ())]
    return sorted(rows + [("Uploads", e["Key"], e["UploadId"]) for e in client.list_multipart_uploads(Bucket=BUCKET).get("Uploads", ())])


def purge(url: str, prefix: str = "sets/one") -> tuple[dict[str, int], list[str], list[tuple[Seen, ...]]]:
    kept: list[tuple[Seen, ...]] = []
    store = remote_store(ForgetStore(f"s3://{BUCKET}/{prefix}", url), frozenset(), url)
    done = purge_stores([store], (), kept.append)
    return {line.what: line.count for line in done.lines}, [entry.reason for entry in done.unfinished], kept


def test_no_version_marker_or_upload_is_left_and_another_requests_are_untouched(s3: tuple[str, Any]) -> None:
    """``sets/one`` is a prefix of ``sets/one-more`` too, as S3 sees it."""
    url, client = s3
    for prefix in ("sets/one", "sets/one-more", "sets/two"):
        fill(client, prefix)
    before = everything(url)
    versions = [(key, version) for kind, key, version in before if kind == "Versions" and key.startswith("sets/one/")]
    counts, unfinished, _ = purge(url)
    assert unfinished == []
    assert counts == {"object versions": 3, "delete markers": 1, "multipart uploads": 1, "forget sets": 2}
    assert everything(url) == [row for row in before if not row[1].startswith("sets/one/")]
    for key, version in versions:
        with pytest.raises(ClientError):
            client.get_object(Bucket=BUCKET, Key=key, VersionId=version)


def test_control_a_plain_delete_leaves_versions_and_the_proof_says_so(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, client = s3
    fill(client, "sets/one")
    monkeypatch.setattr(S3Place, "_delete", lambda _, own, key, version: own.delete_object(Bucket=BUCKET, Key=key))
    _, unfinished, _ = purge(url)
    assert "still exist after the deletion" in unfinished[0]
    assert [kind for kind, _, _ in everything(url)].count("Versions") == 3
    assert not client.list_objects_v2(Bucket=BUCKET).get("Contents"), "and a listing of objects shows nothing of it"


def test_what_dvc_pushed_is_gone_also_where_it_was_pushed_over(s3: tuple[str, Any], tmp_path: Path) -> None:
    url, _ = s3
    store = ForgetStore(f"s3://{BUCKET}/sets/one", url)
    for content in (b"first", b"second"):
        (tmp_path / "folder").mkdir(exist_ok=True)
        (tmp_path / "folder" / "shard").write_bytes(content)
        version = store.publish(tmp_path / "folder", tmp_path / "scratch")
    assert len(everything(url)) == 4
    assert purge(url)[1] == []
    assert everything(url) == []
    with pytest.raises(BadInput, match="is not in the DVC remote"):
        store.fetch(version, tmp_path / "back", tmp_path / "scratch")


def test_a_bucket_without_versions_is_purged_too(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch, BUCKET) as (url, client):
        client.put_object(Bucket=BUCKET, Key="sets/one/a", Body=b"x")
        assert purge(url)[0]["object versions"] == 1
        assert everything(url) == []


def test_a_lock_is_said_and_the_rest_goes_when_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(monkeypatch, "another") as (url, client):
        client.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
        until = datetime.now(UTC) + timedelta(days=3)
        locked = client.put_object(Bucket=BUCKET, Key="sets/one/a", Body=b"x", ObjectLockMode="GOVERNANCE", ObjectLockRetainUntilDate=until)
        client.put_object(Bucket=BUCKET, Key="sets/one/b", Body=b"x", ObjectLockLegalHoldStatus="ON")
        assert f"under an object lock (governance until {until:%Y-%m-%d})" in purge(url)[1][0]
        client.delete_object(Bucket=BUCKET, Key="sets/one/a", VersionId=locked["VersionId"], BypassGovernanceRetention=True)
        assert "under an object lock (a legal hold)" in purge(url)[1][0]
        client.put_object_legal_hold(Bucket=BUCKET, Key="sets/one/b", LegalHold={"Status": "OFF"})
        assert purge(url)[1] == []
        assert everything(url) == []


class Flaky:
    """The real place, whose store answers 500 from a certain deletion on."""

    def __init__(self, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left, self.real = after, S3Place._delete
        monkeypatch.setattr(S3Place, "_delete", lambda place, client, key, version: self(place, client, key, version))

    def __call__(self, place: S3Place, client: Any, key: str, version: str) -> None:
        if self.left == 0:
            client.meta.events.register("before-send.s3", self._answer)
        self.left -= 1
        self.real(place, client, key, version)

    @staticmethod
    def _answer(request: Any, **_: object) -> Any:
        from botocore.awsrequest import AWSResponse

        class Body:
            def stream(self, *_: object, **__: object) -> Iterator[bytes]:
                yield b"<Error><Code>InternalError</Code></Error>"

        return AWSResponse(request.url, 500, {}, Body())


def test_a_store_that_fails_in_the_middle_is_unfinished_and_the_next_run_goes_on(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, client = s3
    fill(client, "sets/one")
    before = len(everything(url))
    with monkeypatch.context() as patch:
        Flaky(2, patch)
        _, unfinished, kept = purge(url)
    assert "the S3 store answers InternalError" in unfinished[0]
    assert 0 < len(everything(url)) < before
    store = remote_store(ForgetStore(f"s3://{BUCKET}/sets/one", url), frozenset(), url)
    done = purge_stores([store], kept[-1], kept.append)
    assert done.unfinished == ()
    assert everything(url) == []
    assert {line.what: line.count for line in done.lines}["object versions"] == 3, "what the first run deleted is counted"


def test_a_store_that_is_down_is_not_taken_for_an_empty_one(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        closed = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with pytest.raises(Unreachable, match="does not answer"):
        S3Place(BUCKET, "sets/one", closed).items()
    with pytest.raises(BadInput, match="does not exist"):
        S3Place("no-such-bucket", "sets/one", s3[0]).items()


def test_a_client_that_may_not_list_versions_proves_nothing(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    url, client = s3
    fill(client, "sets/one")
    policy = '{"Statement": [{"Effect": "Deny", "Principal": "*", "Action": "s3:ListBucketVersions", "Resource": "*"}]}'
    client.put_bucket_policy(Bucket=BUCKET, Policy=policy)
    refuse = ClientError({"Error": {"Code": "AccessDenied"}}, "ListObjectVersions")

    def denied(*_: object, **__: object) -> None:
        raise refuse

    monkeypatch.setattr("botocore.client.BaseClient.get_paginator", denied)  # moto knows no policies without its IAM mode
    with pytest.raises(Unreachable, match="refuses \\(AccessDenied\\)"):
        S3Place(BUCKET, "sets/one", url).items()


def test_whole_buckets_and_unknown_stores_are_refused() -> None:
    with pytest.raises(BadInput, match="a whole bucket is never purged"):
        place_for("s3://bucket", "s3://bucket")
    with pytest.raises(BadInput, match="gs://"):
        place_for("gs://bucket/prefix", "gs://bucket")


def test_a_sentence_names_no_key(s3: tuple[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A key may be anybody's name."""
    url, client = s3
    client.put_object(Bucket=BUCKET, Key="sets/one/jane-doe", Body=b"x")
    Flaky(0, monkeypatch)
    with pytest.raises(EraseDiffError) as refused:
        S3Place(BUCKET, "sets/one", url).items()[0].remove()
    assert "jane" not in str(refused.value)
    assert requests.get(f"{url}/moto-api/data.json", timeout=10).ok, "control: the server is up"
