"""Object stores: a bucket of S3, Google Cloud Storage or Azure, or a folder, that keeps whole objects by name::

    store = open_store("s3://bucket/prefix", ObjectOptions())
    store.create("trees/ab/ab12…", data)     # False if an object of this name is there: it is left as it is
    store.read("trees/ab/ab12…")

Nothing here changes what an object holds once it is made. Every call blocks, within deadlines and with few retries, so
an event loop makes it in a thread. Log and releases stand on this, server and trainer alike, so it knows nothing of
either.

Buckets are reached by obstore, which takes credentials from the environment and the machine as the provider's own tools
name them (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, `AZURE_STORAGE_ACCOUNT_NAME`, an instance's role).
None is ever in a URL, so URLs may be logged.

A folder (2026-11-29) is written by `ramify.files` and not by obstore, which does not flush what it writes to the disk:
an object that a database's row names must survive a power failure as the row does.
"""

from __future__ import annotations

import errno
import importlib.util
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Protocol
from urllib.parse import SplitResult, unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from ramify.files import create

SCHEMES = ("s3", "gs", "az", "file")
EXAMPLES = "s3://bucket/prefix, gs://bucket/prefix, az://container/prefix or file:///folder"
PART = 8 << 20
"""Bytes of one request of an upload or download."""
_PAGE = 1000
_REFUSED = re.compile(r"\b(?:status|code):? 4(?!08|25|29)\d\d\b|credential", re.IGNORECASE)
"""Marks of a store's error that the request is at fault, so that no later one will do better."""
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS}
"""Errors of a folder that waiting does not mend."""
_ENDPOINT = r"^https?://[^/@?#\s]+(/[^?#\s]*)?$"
"""A server: no user, no query, so that no secret stands in it."""


class ObjectStoreError(Exception):
    """An object store refuses or fails; the message says which one, and never holds a credential."""


class ObjectMissing(ObjectStoreError):
    """The store has no object of this name."""


class ObjectStoreAway(ObjectStoreError):
    """The store cannot be reached, or fails at the moment: trying again later may help."""


class StoreOptions(BaseModel):
    """Object stores: the one of releases, and how one is asked."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    releases: str | None = Field(
        default=None,
        description=f"Store of releases: {EXAMPLES}. The folder `weights` then holds those that were fetched from it "
        "or are published to it. None: that folder has them all.",
    )
    endpoint: str | None = Field(
        default=None,
        pattern=_ENDPOINT,
        description="Address of an S3-compatible server; none: `AWS_ENDPOINT_URL`, or Amazon's own.",
    )
    seconds: float = Field(
        default=10.0,
        gt=0,
        le=300,
        description="Deadline of one request; retries together take as long again.",
    )
    retries: int = Field(default=3, ge=0, le=10, description="How often a failed request is sent again.")

    @field_validator("releases", "trees", check_fields=False)
    @classmethod
    def is_a_store(cls, url: str | None) -> str | None:
        if url is not None:
            split_url(url)
        return url


class ObjectOptions(StoreOptions):
    """Object stores: the bodies of trees, releases, and how a store is asked."""

    trees: str | None = Field(
        default=None,
        description=f"Store of the bodies of trees that are logged from now on: {EXAMPLES}; none: the log's own rows.",
    )
    parallel: int = Field(default=16, ge=1, le=256, description="Bodies that are written or read at once.")
    grace_seconds: float = Field(
        default=86_400.0,
        ge=60,
        description="Age at which an object that no tree of the log names is removed, and how often the store is "
        "searched for such. More than any time for which a server may hold finished searches back from its database.",
    )
    cache_bytes: int = Field(
        default=1 << 36,
        ge=0,
        description="Size of the releases in the folder `weights` beyond which those used least recently are removed. "
        "Only those that the store has, and that are not in use.",
    )


class ObjectStore(Protocol):
    """A place of objects. Names are relative to its URL. Every call raises `ObjectStoreError` if the store fails."""

    url: str

    def create(self, name: str, data: bytes) -> bool:
        """Make an object, whole or not at all; False if one of this name is there, which is left as it is."""

    def renew(self, name: str, data: bytes) -> None:
        """Give an object the age of a new one; `data` is what it holds, and is written should it have gone."""

    def upload(self, name: str, source: Path) -> None:
        """Make an object of a file in parts. One of this name and size that is there is taken for the same."""

    def read(self, name: str) -> bytes:
        """Return an object. Raises `ObjectMissing`."""

    def download(self, name: str, size: int, target: IO[bytes]) -> None:
        """Write an object of `size` bytes into a file, in parts. Raises `ObjectMissing`."""

    def modified(self, name: str) -> float | None:
        """Return when an object was made or renewed, in Unix seconds by the store's clock; `None` if it is gone."""

    def find(self, prefix: str) -> Iterator[Mapping[str, float]]:
        """Yield the names of the objects below a folder, such as `trees`, some at a time and in no order, each with
        when it was made, or made young again (Unix seconds, by the store's clock)."""

    def remove(self, names: Sequence[str]) -> None:
        """Remove objects; one that is not there is no error."""


def split_url(url: str) -> SplitResult:
    """Return a store's URL in parts. Raises `ValueError`, whose message does not quote it: it may hold a secret."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"an object store's URL cannot be read; it should look like {EXAMPLES}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"an object store's URL should look like {EXAMPLES}")
    if "@" in parts.netloc or parts.query or parts.fragment or port is not None:
        raise ValueError(
            "an object store's URL holds neither credentials nor parameters: those are in the environment "
            "(docs/objects.md)"
        )
    if parts.scheme == "file" and (parts.netloc or not parts.path.strip("/")):
        raise ValueError(
            "a folder as an object store is file:/// and its absolute path, as in file:///var/objects"
        )
    if parts.scheme != "file" and not parts.netloc:
        raise ValueError(f"an object store's URL names a bucket, as in {EXAMPLES}")
    return parts


def folder_of(url: str) -> Path | None:
    """Return the folder that a store is; `None` for a bucket."""
    parts = split_url(url)
    return Path(unquote(parts.path)) if parts.scheme == "file" else None


def open_store(url: str, options: StoreOptions) -> ObjectStore:
    """Return the store that a URL names, without asking it anything. Raises `ObjectStoreError`."""
    try:
        folder = folder_of(url)
    except ValueError as error:
        raise ObjectStoreError(str(error)) from None
    return Bucket(url, options) if folder is None else Folder(url, folder)


class Folder:
    """A folder as a store. An object is on the disk, its name too, when `create` or `upload` returns."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self._root = root

    def create(self, name: str, data: bytes) -> bool:
        with self._translated(name):
            return create(self._path(name), lambda file: file.write(data))

    def renew(self, name: str, data: bytes) -> None:
        with self._translated(name):
            try:
                os.utime(self._path(name))
            except FileNotFoundError:
                create(self._path(name), lambda file: file.write(data))

    def upload(self, name: str, source: Path) -> None:
        with self._translated(name), source.open("rb") as given:
            path = self._path(name)
            if not path.is_file() or path.stat().st_size != source.stat().st_size:
                path.unlink(missing_ok=True)
                create(path, lambda file: shutil.copyfileobj(given, file))

    def read(self, name: str) -> bytes:
        with self._translated(name):
            return self._path(name).read_bytes()

    def download(self, name: str, size: int, target: IO[bytes]) -> None:
        with self._translated(name), self._path(name).open("rb") as file:
            shutil.copyfileobj(file, target)

    def modified(self, name: str) -> float | None:
        try:
            with self._translated(name):
                return self._path(name).stat().st_mtime
        except ObjectMissing:
            return None

    def find(self, prefix: str) -> Iterator[Mapping[str, float]]:
        with self._translated(prefix):
            page = {}
            for path in self._path(prefix).rglob("*"):
                if path.is_file() and not path.name.startswith("."):
                    with suppress(FileNotFoundError):  # removed just now
                        page[path.relative_to(self._root).as_posix()] = path.stat().st_mtime
            yield page

    def remove(self, names: Sequence[str]) -> None:
        for name in names:
            with self._translated(name):
                self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._root / name

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            raise ObjectMissing(f"{self.url} has no object {name}") from error
        except OSError as error:
            kind = ObjectStoreError if error.errno in _REFUSALS else ObjectStoreAway
            raise kind(f"{self.url} failed at {name}: {error.strerror}") from error


class Bucket:
    """A bucket, by obstore."""

    def __init__(self, url: str, options: StoreOptions) -> None:
        """Raises `ObjectStoreError` if obstore is not installed, or lacks something that it must be told."""
        if importlib.util.find_spec("obstore") is None:
            raise ObjectStoreError(f"{url} needs obstore: pip install '.[objects]' in a checkout")
        import obstore
        import obstore.exceptions
        from obstore.store import from_url

        self.url = url
        self._obstore: Any = obstore
        limits = {
            # An endpoint that begins with http: is somebody's choice.
            "client_options": {"timeout": timedelta(seconds=options.seconds), "allow_http": True},
            "retry_config": {
                "max_retries": options.retries,
                "retry_timeout": timedelta(seconds=options.seconds),
            },
        }
        if options.endpoint is not None and url.startswith("s3:"):
            limits["endpoint"] = options.endpoint  # type: ignore[assignment]
        with self._translated("the start"):
            self._store: Any = from_url(url, **limits)

    def create(self, name: str, data: bytes) -> bool:
        try:
            with self._translated(name, writing=True):
                self._obstore.put(self._store, name, data, mode="create")
        except FileExistsError:
            return False
        return True

    def renew(self, name: str, data: bytes) -> None:
        with self._translated(name, writing=True):
            self._obstore.put(self._store, name, data)

    def upload(self, name: str, source: Path) -> None:
        head = self._head(name)
        if head is None or head["size"] != source.stat().st_size:
            # obstore has no parts that are create-only; a name that follows from the bytes needs none.
            with self._translated(name, writing=True):
                self._obstore.put(self._store, name, source, chunk_size=PART, max_concurrency=4)

    def read(self, name: str) -> bytes:
        with self._translated(name):
            return bytes(self._obstore.get(self._store, name).bytes())

    def download(self, name: str, size: int, target: IO[bytes]) -> None:
        for start in range(0, size, PART):
            with self._translated(name):
                part = self._obstore.get_range(self._store, name, start=start, length=min(PART, size - start))
            target.write(part)

    def modified(self, name: str) -> float | None:
        head = self._head(name)
        return None if head is None else float(head["last_modified"].timestamp())

    def find(self, prefix: str) -> Iterator[Mapping[str, float]]:
        with self._translated(prefix):
            for page in self._obstore.list(self._store, prefix, chunk_size=_PAGE):
                yield {one["path"]: one["last_modified"].timestamp() for one in page}

    def remove(self, names: Sequence[str]) -> None:
        for start in range(0, len(names), _PAGE):
            try:
                with self._translated("a removal"):
                    self._obstore.delete(self._store, list(names[start : start + _PAGE]))
            except ObjectMissing:  # a store without bulk deletion stops at one that is not there
                self._remove_each(names[start : start + _PAGE])

    def _remove_each(self, names: Sequence[str]) -> None:
        for name in names:
            try:
                with self._translated(name):
                    self._obstore.delete(self._store, name)
            except ObjectMissing:
                pass

    def _head(self, name: str) -> Any:
        try:
            with self._translated(name):
                return self._obstore.head(self._store, name)
        except ObjectMissing:
            return None

    @contextmanager
    def _translated(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Turn obstore's errors into ours, not chained: its own describe whole requests."""
        try:
            yield
        except self._obstore.exceptions.AlreadyExistsError:
            raise FileExistsError(name) from None
        except FileNotFoundError as error:  # also if the bucket is not there
            if writing:
                raise ObjectStoreError(self._failure(name, error)) from None
            raise ObjectMissing(f"{self.url} has no object {name}") from None
        except (self._obstore.exceptions.BaseError, OSError, ValueError) as error:
            kind = ObjectStoreAway if self._is_away(error) else ObjectStoreError
            raise kind(self._failure(name, error)) from None

    def _is_away(self, error: Exception) -> bool:
        """Tell whether it may work later. obstore has classes for what is refused, and one for all that fails."""
        general = isinstance(error, self._obstore.exceptions.GenericError | TimeoutError | ConnectionError)
        return general and not _REFUSED.search(str(error))

    def _failure(self, name: str, error: Exception) -> str:
        line = str(error).partition("\n")[0].strip()
        return f"{self.url} failed at {name}: " + re.sub(r"\?\S+", "?…", line)  # a query may hold a signature
