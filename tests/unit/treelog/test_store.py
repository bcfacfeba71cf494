from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ramify.treelog import LogError, StoreError, TreeLog
from ramify.treelog.store import parse_url


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def test_a_sqlite_url_names_a_file_by_its_real_path(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    assert parse_url(f"sqlite:///{tmp_path}/link/../{tmp_path.name}/log.db").path == tmp_path / "log.db"
    assert parse_url("sqlite:///data/log.db").path == Path.cwd() / "data/log.db"


@pytest.mark.parametrize(
    "url", ["postgres://u:p@h/db", "postgresql://u:p@h/db", "postgresql+asyncpg://u:p@h/db"]
)
def test_every_way_to_write_a_postgresql_url_means_the_same(url: str) -> None:
    assert parse_url(url).url.render_as_string(hide_password=False) == "postgresql+asyncpg://u:p@h/db"


def test_libpqs_sslmode_is_understood() -> None:
    assert parse_url("postgresql://h/db?sslmode=require").url.query == {"ssl": "require"}


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite://", "needs a SQLite file"),
        ("sqlite:///:memory:", "needs a SQLite file"),
        ("sqlite:///a.db?mode=ro", "takes no URL parameters, got 'mode'"),
        ("mysql://u:hunter2@h/db", "begins with 'mysql'"),
        ("u:hunter2@h/db", "cannot be read"),
        ("postgresql://u:hunter2@h:port/db", "cannot be read"),
        ("", "cannot be read"),
    ],
)
def test_a_url_that_means_no_store_is_refused_without_its_password(url: str, said: str) -> None:
    with pytest.raises(LogError) as refused:
        parse_url(url)
    assert said in str(refused.value)
    assert "hunter2" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_postgresql_without_its_driver_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "asyncpg", None)
    with pytest.raises(LogError, match=r"pip install '\.\[postgres\]' in a checkout"):
        parse_url("postgresql://h/db")


@pytest.mark.anyio
async def test_a_store_that_cannot_be_reached_is_named_without_its_password() -> None:
    with pytest.raises(StoreError) as failed:
        await TreeLog.open("postgresql://u:hunter2@127.0.0.1:1/db")
    assert "postgresql+asyncpg://u:***@127.0.0.1:1/db" in str(failed.value)
    error: BaseException | None = failed.value
    while error is not None:
        assert "hunter2" not in repr(error)
        error = error.__cause__


@pytest.mark.anyio
async def test_a_folder_in_the_files_place_is_a_store_error(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=str(tmp_path)):
        await TreeLog.open(f"sqlite:///{tmp_path}")
