"""Both kinds of store keep the same promises."""

from __future__ import annotations

import io
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from fixtures_objects import CREDENTIALS, S3Server, s3_server  # noqa: F401  (a fixture)
from ramify.objects import (
    PART,
    ObjectMissing,
    ObjectOptions,
    ObjectStore,
    ObjectStoreAway,
    ObjectStoreError,
    folder_of,
    open_store,
)


@pytest.fixture(params=["folder", "s3"])
def store(request: Any, tmp_path: Path) -> ObjectStore:
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/some%20where/objects", ObjectOptions())
    server: S3Server = request.getfixturevalue("s3_server")
    return open_store(server.bucket(), server.options())


def names(store: ObjectStore, prefix: str) -> list[str]:
    return sorted(name for page in store.find(prefix) for name in page)


def test_an_object_is_made_once_and_never_changed(store: ObjectStore) -> None:
    assert store.create("trees/ab/abc", b"first") is True
    assert store.create("trees/ab/abc", b"second") is False
    assert store.read("trees/ab/abc") == b"first"


@pytest.mark.parametrize("there", [True, False])
def test_an_object_is_made_young_again_and_made_should_it_have_gone(store: ObjectStore, there: bool) -> None:
    if there:
        store.create("trees/ab/abc", b"first")
    if there and (root := folder_of(store.url)) is not None:
        os.utime(root / "trees/ab/abc", (0, 0))
    began = time.time()
    store.renew("trees/ab/abc", b"first")
    ((made,),) = (page.values() for page in store.find("trees"))
    assert made >= began - 2  # clocks of stores count seconds
    assert store.read("trees/ab/abc") == b"first"


def test_a_file_that_goes_while_a_folder_is_searched_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(f"file://{tmp_path}", ObjectOptions())
    for name in ("trees/ab/abc", "trees/ab/abd"):
        store.create(name, b"whole")
    there = Path.is_file

    def is_file(path: Path) -> bool:
        found = there(path)
        if path.name == "abc":
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", is_file)
    assert names(store, "trees") == ["trees/ab/abd"]


def test_objects_are_found_below_a_folder_and_removed(store: ObjectStore) -> None:
    made = [f"trees/{shard}/{shard}{i}" for shard in ("ab", "cd") for i in range(3)]
    for name in made:
        store.create(name, b"12345")
    assert names(store, "trees") == made
    assert names(store, "trees/ab") == made[:3]
    assert names(store, "nothing") == []
    (when,) = (page[made[0]] for page in store.find("trees/ab") if made[0] in page)
    assert abs(when - time.time()) < 600
    store.remove([made[0], "trees/ab/none", made[1]])
    assert names(store, "trees") == made[2:]


def test_what_is_not_there_is_missing_and_its_store_is_named(store: ObjectStore) -> None:
    for call in (lambda: store.read("none"), lambda: store.download("none", 3, io.BytesIO())):
        with pytest.raises(ObjectMissing, match=f"{store.url} has no object none"):
            call()


def test_a_large_file_goes_up_and_comes_down_in_parts(store: ObjectStore, tmp_path: Path) -> None:
    data = os.urandom(PART + 12_345)
    (tmp_path / "weights").write_bytes(data)
    store.upload("files/weights", tmp_path / "weights")
    target = io.BytesIO()
    store.download("files/weights", len(data), target)
    assert target.getvalue() == data


def test_an_upload_replaces_what_an_earlier_one_left_cut_short(store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"whole")
    store.create("files/weights", b"who")
    store.upload("files/weights", tmp_path / "weights")
    assert store.read("files/weights") == b"whole"


def test_a_folder_shows_nothing_of_an_object_that_is_being_made(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}", ObjectOptions())
    store.create("trees/ab/abc", b"whole")
    (tmp_path / "trees/ab/.abd.0.draft").write_bytes(b"ha")
    assert names(store, "trees") == ["trees/ab/abc"]


def test_a_bucket_that_is_away_is_an_error_within_the_deadline(s3_server: S3Server) -> None:  # noqa: F811
    store = open_store(s3_server.bucket(), s3_server.options(seconds=0.5, retries=1))
    s3_server.hang()
    try:
        with pytest.raises(ObjectStoreAway, match=r"s3://\S+ failed at a: "):
            store.create("a", b"")
    finally:
        s3_server.go_on()
    s3_server.doorway.shut()
    try:
        with pytest.raises(ObjectStoreAway, match=r"s3://\S+ failed at a: "):
            store.read("a")
    finally:
        s3_server.doorway.open()


class Answering(BaseHTTPRequestHandler):
    """Answers every request with the status that its bucket's name ends in."""

    def do_GET(self) -> None:
        self.send_response(int(self.path[-7:-4]))
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_PUT = do_GET

    def log_message(self, *_: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("status", "kind"),
    [(s, ObjectStoreError) for s in (400, 401, 403)] + [(s, ObjectStoreAway) for s in (408, 429, 500, 503)],
)
def test_what_waiting_mends_is_told_from_what_it_does_not(
    status: int, kind: type[ObjectStoreError], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    with ThreadingHTTPServer(("127.0.0.1", 0), Answering) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        options = ObjectOptions(endpoint=f"http://127.0.0.1:{server.server_port}", retries=0)
        store = open_store(f"s3://bucket/answer-{status}", options)
        for call in (lambda: store.read("abc"), lambda: store.create("abc", b"")):
            with pytest.raises(ObjectStoreError, match=str(status)) as told:
                call()
            assert type(told.value) is kind
        server.shutdown()


def test_a_bucket_that_does_not_exist_is_an_error_without_secrets(s3_server: S3Server) -> None:  # noqa: F811
    store = open_store("s3://there-is-none/x", s3_server.options())
    with pytest.raises(ObjectStoreError, match=r"NoSuchBucket|not found") as failed:
        store.create("a", b"")
    assert not isinstance(failed.value, ObjectMissing)
    assert CREDENTIALS["AWS_SECRET_ACCESS_KEY"] not in repr(failed.value)
    assert failed.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://key:hunter2@bucket/x", "neither credentials nor parameters"),
        ("s3://bucket/x?X-Amz-Signature=hunter2", "neither credentials nor parameters"),
        ("gs://bucket/x#hunter2", "neither credentials nor parameters"),
        ("s3://bucket:hunter2/x", "cannot be read"),
        ("https://hunter2.blob.core.windows.net/c", "should look like"),
        ("runs/objects", "should look like"),
        ("s3:///x", "names a bucket"),
        ("file://host/x", "its absolute path"),
        ("file:///", "its absolute path"),
    ],
)
def test_a_url_that_is_no_store_is_refused_by_name_and_not_quoted(url: str, said: str) -> None:
    with pytest.raises(ObjectStoreError, match=said) as refused:
        open_store(url, ObjectOptions())
    assert "hunter2" not in str(refused.value)
    with pytest.raises(ValidationError, match=said):
        ObjectOptions(trees=url)


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/a", "az://container/a"])
def test_the_three_clouds_are_buckets(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "someone")
    assert open_store(url, ObjectOptions()).url == url
    assert folder_of(url) is None


def test_a_bucket_without_obstore_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ObjectStoreError, match=r"pip install '\.\[objects\]' in a checkout"):
        open_store("s3://bucket/x", ObjectOptions())


def test_an_endpoint_holds_no_credentials() -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        ObjectOptions(endpoint="http://key:secret@127.0.0.1:9000")


def test_endpoint_and_credentials_come_from_the_environment(
    s3_server: S3Server,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server.endpoint)
    store = open_store(s3_server.bucket(), ObjectOptions(seconds=30))
    assert store.create("a", b"1")
    assert store.read("a") == b"1"
