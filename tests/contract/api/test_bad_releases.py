"""Releases that are refused before an engine is touched."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from fakes_releases import write_release
from ramify.weights.publish import digest
from ramify.weights.tensors import INDEX

from .site import Site

pytestmark = pytest.mark.anyio


def rewrite(root: Path, **arrays: Any) -> None:
    """Put other tensors into v000002, and into its manifest."""
    folder = root / "v000002"
    save_file(
        {name: np.asarray(value, np.float32) for name, value in arrays.items()},
        folder / "policy/model.safetensors",
    )
    made = load_manifest(folder)
    made["files"]["policy/model.safetensors"] = digest(folder / "policy/model.safetensors").model_dump()
    store_manifest(folder, made)


def load_manifest(folder: Path) -> dict[str, Any]:
    import json

    content: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
    return content


def store_manifest(folder: Path, content: dict[str, Any]) -> None:
    import json

    (folder / "manifest.json").write_text(json.dumps(content))


def truncated(root: Path) -> None:
    path = root / "v000002/policy/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])


def truncated_and_signed(root: Path) -> None:
    truncated(root)
    made = load_manifest(root / "v000002")
    made["files"]["policy/model.safetensors"] = digest(root / "v000002/policy/model.safetensors").model_dump()
    store_manifest(root / "v000002", made)


def other_hash(root: Path) -> None:
    path = root / "v000002/value/model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def other_architecture(root: Path) -> None:
    shutil.rmtree(root / "v000002")
    write_release(root, 2.0, 0.2, release_id="v000002", hidden=2)


def a_symlink(root: Path) -> None:
    (root / "v000002").rename(root / "elsewhere")
    (root / "v000002").symlink_to(root / "elsewhere")


def a_linked_file(root: Path) -> None:
    path = root / "v000002/policy/model.safetensors"
    path.rename(root / "model.safetensors")
    path.symlink_to(root / "model.safetensors")


def another_tokenizer(root: Path) -> None:
    (root / "v000002/value/tokenizer.json").write_text('{"other": 1}')
    made = load_manifest(root / "v000002")
    made["files"]["value/tokenizer.json"] = digest(root / "v000002/value/tokenizer.json").model_dump()
    store_manifest(root / "v000002", made)


def signed(root: Path, name: str, content: bytes) -> None:
    """Put a file into v000002, and what it is into the manifest."""
    folder = root / "v000002"
    (folder / name).write_bytes(content)
    made = load_manifest(folder)
    made["files"][name] = digest(folder / name).model_dump()
    store_manifest(folder, made)


def headed(root: Path, header: Any, data: bytes = bytes(8)) -> None:
    """Give v000002 a policy of this header."""
    import json

    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    signed(root, "policy/model.safetensors", len(text).to_bytes(8, "little") + text + data)


def w(start: Any = 0, end: Any = 8, **other: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [2], "data_offsets": [start, end], **other}


def indexed(root: Path, content: str) -> None:
    signed(root, f"policy/{INDEX}", content.encode())


DEEP = b'{"w": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
BAD = {
    "a deep config.json": (lambda root: signed(root, "value/config.json", DEEP), "nested too deep"),
    "a config.json that is a list": (
        lambda root: signed(root, "policy/config.json", b"[]"),
        "no JSON object",
    ),
    "a deep header": (lambda root: headed(root, DEEP), "nested too deep"),
    "a tensor twice": (lambda root: headed(root, b'{"w": 1, "w": 2}'), "given twice"),
    "a header without places": (lambda root: headed(root, {"w": {"dtype": "F32"}}), "header says nothing"),
    "an unknown type": (lambda root: headed(root, {"w": w(dtype="F31")}), "header says nothing"),
    "a place in fractions": (lambda root: headed(root, {"w": w(0.0)}), "header says nothing"),
    "a place before the data": (lambda root: headed(root, {"w": w(-8, 0)}), "header says nothing"),
    "too few bytes for the shape": (lambda root: headed(root, {"w": w(0, 4)}), "cannot have 4 bytes"),
    "tensors that overlap": (
        lambda root: headed(root, {"w": w(), "x": w(4, 12)}, bytes(12)),
        "begins at byte",
    ),
    "a gap": (lambda root: headed(root, {"w": w(4, 12)}, bytes(12)), "begins at byte"),
    "bytes of no tensor": (
        lambda root: headed(root, {"w": w()}, bytes(9)),
        "1 bytes that belong to no tensor",
    ),
    "a deep index": (lambda root: indexed(root, DEEP.decode()), "nested too deep"),
    "an index without a map": (lambda root: indexed(root, "{}"), "no weight_map"),
    "an index that leads out": (
        lambda root: indexed(root, '{"weight_map": {"w": "../../v000001/policy/model.safetensors"}}'),
        "is in model.safetensors; weight_map says ../../",
    ),
    "an index that lacks a tensor": (
        lambda root: indexed(root, '{"weight_map": {}}'),
        "weight_map says no file",
    ),
    "an index of a tensor that is not there": (
        lambda root: indexed(root, '{"weight_map": {"w": "model.safetensors", "x": "model.safetensors"}}'),
        "the tensor x is in no file",
    ),
    "a deep manifest": (
        lambda root: (root / "v000002/manifest.json").write_bytes(DEEP),
        "not a valid manifest",
    ),
    "truncated": (truncated, "bytes"),
    "truncated, with a fitting hash": (truncated_and_signed, "ends before its tensor"),
    "wrong hash": (other_hash, "sha256"),
    "missing tensor": (lambda root: rewrite(root, other=[1, 1]), "lacks 1 tensors: w"),
    "a tensor too many": (lambda root: rewrite(root, w=[1, 1], more=[1]), "too many"),
    "another shape": (lambda root: rewrite(root, w=[1, 1, 1]), "shape"),
    "NaN": (lambda root: rewrite(root, w=[1, np.nan]), "NaN or infinite"),
    "infinite": (lambda root: rewrite(root, w=[-np.inf, 1]), "NaN or infinite"),
    "another architecture": (other_architecture, "hidden_size is 2, not 1"),
    "another tokenizer": (another_tokenizer, "tokens would mean other things"),
    "a symlink": (a_symlink, "symbolic link"),
    "a symlink inside": (a_linked_file, "symbolic link"),
    "a pickle": (lambda root: (root / "v000002/policy/pytorch_model.bin").write_bytes(b"x"), "safetensors"),
    "unfinished": (lambda root: (root / "v000002/READY").unlink(), "READY"),
    "no manifest": (lambda root: (root / "v000002/manifest.json").unlink(), "missing"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_release_is_refused_before_an_engine_is_touched_and_the_old_one_serves(
    site: Site, name: str
) -> None:
    spoil, said = BAD[name]
    spoil(site.root)
    reply = await site.activate("v000002")
    error = reply.json()["error"]
    assert (reply.status_code, error["code"]) == (409, "activation_failed")
    assert said in error["message"]
    assert "v000001 is served as before" in error["message"]
    assert site.engines.loads == []
    assert await site.served() == "v000001"
    (row,) = [row for row in (await site.listing())["data"] if row["id"] == "v000002"]
    assert row["state"] == "failed"
    assert said in row["figures"]["activation_error"]
    assert (await site.listing())["activations"] == []


@pytest.mark.parametrize(
    "given",
    ["v000009", "latest", "..%2Fv000002", "%2e%2e%2fv000002", "v0000021", "v000002%00", "V000002"],
)
async def test_only_ids_of_releases_are_taken(site: Site, given: str) -> None:
    reply = await site.admin.post(f"/admin/releases/{given}/activate", json={})
    assert reply.status_code == 404, reply.text
    assert site.engines.loads == []
