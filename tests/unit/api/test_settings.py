from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ramify.settings import BadSettings, Settings, load
from ramify.settings.loading import variables
from ramify.settings.placeholders import unusable

KEY = "0123456789abcdef"


def test_flags_win_over_variables_over_the_file_over_defaults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "ramify.toml"
    config.write_text(
        "port = 1\nhost = '127.0.0.2'\n[limits]\npage = 1\nbudget_tokens = 1\nbody_bytes = 4096\n"
    )
    monkeypatch.setenv("RAMIFY_PORT", "2")
    monkeypatch.setenv("RAMIFY_LIMITS__PAGE", "2")
    monkeypatch.setenv("RAMIFY_LIMITS__BUDGET_TOKENS", "2")
    settings = load(config, port=3, limits={"page": 3}, host=None)
    assert (settings.port, settings.limits.page) == (3, 3)
    assert settings.limits.budget_tokens == 2
    assert (settings.host, settings.limits.body_bytes) == ("127.0.0.2", 4096)
    assert settings.limits.budget_nodes == Settings().limits.budget_nodes


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("prot = 1", "prot"),
        ("[limits]\npaeg = 1", "limits.paeg"),
        ("[[auth.keys]]\nname = 'a'\nsecret = 'x'", "secret"),
        ("port = 99999", "port"),
        ("port = ", "TOML"),
        ("value = 'x'", "policy"),
        ("value_head = 'x'", "value_head is the value head of a policy"),
        ("policy = 'p'\nvalue = 'v'\nvalue_head = 'h'", "value and value_head both judge"),
        ("release = 'a'\npolicy = 'b'\nvalue = 'c'", "either"),
        (f"[[auth.keys]]\nname = 'a'\nkey = '{KEY}'\n[[auth.keys]]\nname = 'a'\nkey = '{KEY}x'", "same name"),
        (
            f"[[auth.keys]]\nname = 'a'\nkey = '{KEY}'\n[[auth.keys]]\nname = 'b'\nkey = '{KEY}'",
            "same secret",
        ),
        ("[[auth.keys]]\nname = 'a'\nkey = 'short'", "16 characters"),
        ("[[auth.keys]]\nname = 'a'", "exactly one"),
        (f"[[auth.keys]]\nname = 'a'\nkey = '{KEY}'\nscopes = ['admin']", "scopes"),
        ("[admin]\nkey = 'short'", "admin.*16 characters"),
        (f"[admin]\nkey = '{KEY}'\nkey_file = 'x'", "at most one"),
        ("weights = 'w'\npolicy = 'p'", "weights"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(tmp_path: Path, text: str, named: str) -> None:
    config = tmp_path / "ramify.toml"
    config.write_text(text)
    with pytest.raises(BadSettings, match=named) as caught:
        load(config)
    assert KEY not in str(caught.value)
    assert "'short'" not in str(caught.value)


def test_an_unknown_variable_is_refused_and_those_of_others_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    for others in ("RAMIFY_TRAINER_CONFIG", "RAMIFY_API_KEY", "RAMIFY_CRASH_ROUNDS"):
        monkeypatch.setenv(others, "x")
    load()
    monkeypatch.setenv("RAMIFY_PROT", "1")
    with pytest.raises(BadSettings, match="RAMIFY_PROT"):
        load()


def test_a_missing_file_is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(BadSettings, match="cannot read"):
        load(tmp_path / "none.toml")


def test_keys_come_from_the_settings_and_from_a_file(tmp_path: Path) -> None:
    digest = hashlib.sha256(b"another-long-secret").hexdigest()
    keys = tmp_path / "keys.toml"
    keys.write_text(f"[[keys]]\nname = 'b'\nsha256 = '{digest}'\nscopes = ['log']\n")
    settings = load(auth={"keys": [{"name": "a", "key": KEY}], "keys_file": keys})
    first, second = settings.auth.all_keys()
    assert first.digest == hashlib.sha256(KEY.encode()).digest()
    assert (second.name, second.digest.hex(), second.scopes) == ("b", digest, ("log",))
    keys.write_text("[[key]]\n")
    with pytest.raises(BadSettings, match="unknown key 'key'"):
        load(auth={"keys_file": keys})


def test_the_admin_key_comes_from_a_file_or_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "admin.key"
    file.write_text(KEY + "\n")
    digest = hashlib.sha256(KEY.encode())
    assert load().admin.digest() is None
    for source in ({"key": KEY}, {"key_file": file}, {"sha256": digest.hexdigest()}):
        assert load(admin=source).admin.digest() == digest.digest()
    file.write_text("short")
    with pytest.raises(BadSettings, match="at least 16") as caught:
        load(admin={"key_file": file}).admin.digest()
    assert "short" not in str(caught.value)


@pytest.mark.parametrize(
    "secret",
    [
        "change-me-change-me",
        "CHANGEME_CHANGEME_",
        "your-api-key-goes-here",
        "<at least 16 characters>",
        "x" * 32,
        "an-example-key-for-you",
        "password12345678",
        "placeholder-placeholder",
        "replace-with-a-secret",
    ],
)
def test_a_placeholder_is_refused_wherever_a_secret_is_taken(tmp_path: Path, secret: str) -> None:
    file = tmp_path / "key"
    file.write_text(secret)
    with pytest.raises(BadSettings, match=r"key 'a': this is a placeholder.*openssl rand"):
        load(auth={"keys": [{"name": "a", "key": secret}]})
    with pytest.raises(BadSettings, match=r"admin: key: this is a placeholder"):
        load(admin={"key": secret})
    with pytest.raises(BadSettings, match=r"admin\.key_file: .*this is a placeholder"):
        load(admin={"key_file": file}).admin.digest()


@given(st.binary(min_size=16, max_size=32))
def test_a_random_secret_is_no_placeholder(random: bytes) -> None:
    secret = hashlib.sha256(random).hexdigest()
    assert unusable(secret) is None


def test_a_secret_is_never_shown() -> None:
    settings = load(auth={"keys": [{"name": "a", "key": KEY}]})
    assert KEY not in repr(settings) + settings.model_dump_json()


def test_a_log_may_be_named_by_its_file() -> None:
    assert load(log="some/trees.db").log == "sqlite:///some/trees.db"
    assert load(log="postgresql://me@host/db").log == "postgresql://me@host/db"


def test_every_setting_is_described() -> None:
    assert not [name for _, name, field in variables() if not field.description]


def test_a_scorer_is_named_by_a_table_or_by_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "ramify.toml"
    file.write_text('policy = "p"\n[scorer]\nkind = "judge"\n')
    assert load(file).scorer.kind == "judge"
    monkeypatch.setenv("RAMIFY_SCORER__GOOD", "Right")
    assert (load(file).scorer.kind, load(file).scorer.good) == ("judge", "Right")
    file.write_text("")
    monkeypatch.setenv("RAMIFY_SCORER__KIND", "http")
    monkeypatch.setenv("RAMIFY_SCORER__URL", "http://judge.test/")
    with pytest.raises(BadSettings, match="scorer: good has no effect on api values"):
        load(file)
    monkeypatch.delenv("RAMIFY_SCORER__GOOD")
    assert load(file).scorer.url == "http://judge.test/"


HTTP = {"kind": "http", "url": "http://judge.test/"}
SAFETY = {**HTTP, "prune_below": 0.2}


@pytest.mark.parametrize(
    ("scorers", "judges"),
    [
        ({}, {"": None}),
        ({"safety": SAFETY}, {"": None, "safety": "http"}),
        ({"own": {}, "safety": SAFETY}, {"own": None, "safety": "http"}),
        ({"prm": {"kind": "model", "model": "m"}, "safety": SAFETY}, {"prm": "model", "safety": "http"}),
    ],
)
def test_what_the_release_brings_judges_too_if_it_is_named_or_only_safety_scorers_are(
    scorers: dict[str, Any], judges: dict[str, str | None]
) -> None:
    assert {name: one.kind for name, one in load(scorers=scorers).judges.items()} == judges


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"scorers": {"a": {**HTTP, "weight": 0}}}, "scorers.a.weight: all weights are 0"),
        (
            {"scorers": {"a": {**HTTP, "prune_below": 1}}},
            "scorers.a.prune_below: Input should be less than 1",
        ),
        ({"scorers": {"a": {**HTTP, "prune_below": 0}}}, "scorers.a.prune_below: .* greater than 0"),
        ({"scorers": {"a": {**SAFETY, "weight": 2}}}, "scorers.a: weight has no effect beside prune_below"),
        ({"scorers": {"a": {"prune_below": 0.5}}}, "scorers.a: prune_below has no effect without kind"),
        ({"scorers": {"a": {"weight": -1, **HTTP}}}, "scorers.a.weight"),
        ({"scorers": {"a": {}, "b": {}}}, "scorers.a and scorers.b have no kind"),
        ({"scorers": {"A b": HTTP}}, "scorers.A b"),
        ({"scorer": HTTP, "scorers": {"a": HTTP}}, "scorer and scorers both judge"),
        ({"scorer": {**HTTP, "prune_below": 0.5}}, "scorer.prune_below is for one of several"),
        ({"scorer": {**HTTP, "weight": 2}}, "scorer.weight is for one of several"),
        ({"policy": "p", "value": "v", "scorers": {"a": HTTP}}, "value and scorers both judge: add a table"),
        ({"extensions": {"scorer": "x"}, "scorers": {"a": HTTP}}, "extensions.scorer and scorers both judge"),
    ],
)
def test_scorers_that_cannot_be_combined_are_refused_by_name(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadSettings, match=said):
        load(**given)


def test_a_value_model_judges_beside_safety_scorers() -> None:
    assert load(policy="p", value="v", scorers={"safety": SAFETY}).value == "v"


def test_two_judges_are_refused(tmp_path: Path) -> None:
    scorer = {"kind": "judge"}
    for other in ({"policy": "p", "value": "v"}, {"policy": "p", "value_head": tmp_path}):
        with pytest.raises(BadSettings, match=r"and scorer\.kind both judge"):
            load(scorer=scorer, **other)
    with pytest.raises(BadSettings, match=r"extensions\.scorer and scorer\.kind both judge"):
        load(scorer=scorer, extensions={"scorer": "ascending"})
