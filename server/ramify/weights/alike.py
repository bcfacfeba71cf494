"""Check that one release can take another's place in running engines: same network, same tokens, sound numbers.

vLLM's reload only warns of tensors that are missing and does not look at their shapes, so everything is compared
before an engine is touched: what the configurations say of the network, the tokenizers' files, and name, shape and
type of every tensor. The numbers themselves must be finite.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ramify.weights.adapter import check_adapter
from ramify.weights.manifest import ValueKind, WeightsError
from ramify.weights.release import ModelFiles, Release, models_of
from ramify.weights.tensors import Tensor, json_object, require_finite, require_index, tensors_of
from ramify.weights.value_head import HEAD, check_value_head, hidden_size, value_kind

NO_MATTER = frozenset({"_name_or_path", "transformers_version", "use_cache", "torch_dtype", "dtype"})
"""Keys of config.json that do not describe the network; the types of the weights are compared tensor by tensor."""
MUST_MATCH = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja")
OTHERS = ("vocab.json", "merges.txt", "added_tokens.json", "tokenizer.model", "generation_config.json")
LISTED = 3
"""Names shown of a longer list."""


def require_alike(
    running: Path | Release | ModelFiles, new: Path | Release | ModelFiles, *, judged_apart: bool = False
) -> None:
    """Raise `WeightsError` if what `new` holds must not be loaded in place of `running`.

    Both are releases, or the models of one that is none yet (`models_of`).

    A value head takes the place of a value head alone, and a value model that of a value model; judged_apart: neither
    is served, so only the policies are looked at. Reads every byte of the new weights: seconds a few gigabytes.
    Blocks."""
    before, after = models_of(running), models_of(new)
    kind = None if judged_apart else _same_kind(before.value, after.value)
    _same_model(before.policy, after.policy)
    if after.adapter is not None:
        check_adapter(after.adapter, after.policy)
    if kind == "model":
        _same_model(before.value, after.value)
    if kind == "trunk":
        check_value_head(after.value / HEAD, hidden_size(after.policy))


def _same_model(before: Path, after: Path) -> None:
    if before == after:  # the base of both
        return
    _same_network(before, after)
    for name in (*MUST_MATCH, *OTHERS):
        _same_file(before / name, after / name)
    tensors = tensors_of(after)
    require_index(after, tensors)
    _same_tensors(tensors_of(before), tensors, after)
    require_finite(tensors)


def _same_kind(before: Path, after: Path) -> ValueKind:
    ours, theirs = value_kind(before), value_kind(after)
    if ours != theirs:
        said = {"model": "a value model", "trunk": "a value head on the policy's trunk"}
        raise WeightsError(
            f"{after} is {said[theirs]}, and the release served is judged by {said[ours]}: start another server for it"
        )
    return ours


def _same_network(before: Path, after: Path) -> None:
    ours, theirs = _config(before), _config(after)
    for key in sorted((ours.keys() | theirs.keys()) - NO_MATTER):
        if ours.get(key) != theirs.get(key):
            shown = f"{str(theirs.get(key))[:80]}, not {str(ours.get(key))[:80]}"
            raise WeightsError(
                f"{after / 'config.json'}: {key} is {shown} as in the release served: start another server for it"
            )


def _config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    try:
        return json_object(path.read_bytes(), path)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error}") from error


def _same_file(before: Path, after: Path) -> None:
    if before.is_file() != after.is_file():
        raise WeightsError(f"{after} is {'missing' if before.is_file() else 'not in the release served'}")
    if before.is_file() and before.read_bytes() != after.read_bytes():
        raise WeightsError(f"{after} differs from that of the release served: tokens would mean other things")


def _same_tensors(ours: dict[str, Tensor], theirs: dict[str, Tensor], after: Path) -> None:
    for names, what in (
        (ours.keys() - theirs.keys(), "lacks"),
        (theirs.keys() - ours.keys(), "has too many:"),
    ):
        if names:
            shown = ", ".join(sorted(names)[:LISTED])
            raise WeightsError(f"{after} {what} {len(names)} tensors: {shown}")
    for name, tensor in theirs.items():
        if tensor.shape != ours[name].shape:
            raise WeightsError(f"{after}: {name} has the shape {tensor.shape}, not {ours[name].shape}")
        if tensor.dtype != ours[name].dtype:
            raise WeightsError(f"{after}: {name} is of type {tensor.dtype}, not {ours[name].dtype}")
