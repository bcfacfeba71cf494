"""Make the prompts of the policies that a search names: the request's own, or their own words around it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ramify.engines import NamedPolicy, OtherPolicyOptions
from ramify.rewards import Message
from ramify.search.params import check_policies
from ramify.search.records import OWN_POLICY, Sampling, SearchParams
from ramify.service.errors import BadRequest
from ramify.service.ports import Engines, Tokenizer
from ramify.service.search_spec import SearchSpec


def own_prompts(
    spec: SearchSpec, prompt: Sequence[int], params: SearchParams, sampling: Sampling, engines: Engines
) -> Mapping[str, tuple[int, ...]] | None:
    """Return by name the token ids that policies are given in place of the prompt; `None` if none is given others.

    Raises `BadRequest` for a policy that is not there, that cannot be given this prompt in its own words, or in whose
    context an answer has no room; `ParamError` as `check_policies` does."""
    rewording = {name for name, other in engines.others.items() if other.options.rewords}
    check_policies(params, (OWN_POLICY, *engines.others), rewording)
    prompts: dict[str, tuple[int, ...]] = {}
    for name in params.policies:
        if name == OWN_POLICY:
            continue
        other = engines.others[name]
        if other.options.rewords:
            prompts[name] = tuple(_reworded(name, other.options, spec, engines.tokenizer))
        _check_room(name, other, len(prompts.get(name, prompt)), sampling, engines)
    return prompts or None


def _reworded(name: str, words: OtherPolicyOptions, spec: SearchSpec, tokenizer: Tokenizer) -> list[int]:
    """Return the prompt of a request in a policy's own words."""
    if spec.messages:
        turns = [message.fields() for message in _turns(words, spec.messages)]
        try:
            return tokenizer.encode_chat(turns, spec.template)
        except ValueError as error:
            why = str(error)[:200]
            raise _refused(name, f"cannot put its words through the chat template: {why}") from error
    if not isinstance(spec.prompt, str):
        raise _refused(
            name, "puts words around a prompt, and this one is token ids, or goes on inside an answer"
        )
    if words.system is not None:
        raise _refused(name, "has a system message, for which the request must be a conversation (messages)")
    return tokenizer.encode(words.before + spec.prompt + words.after)


def _turns(words: OtherPolicyOptions, messages: Sequence[Message]) -> list[Message]:
    """Return a conversation with a policy's system message, and its words around the last of the user's."""
    turns = list(messages)
    asked = max((i for i, one in enumerate(turns) if one.role == "user"), default=None)
    if asked is not None:
        content = words.before + turns[asked].content + words.after
        turns[asked] = replace(turns[asked], content=content)
    if words.system is None:
        return turns
    said = [one for one in turns if one.role not in ("system", "developer")]
    return [Message("system", words.system), *said]


def _check_room(
    name: str, other: NamedPolicy, prompt_tokens: int, sampling: Sampling, engines: Engines
) -> None:
    longest = min(other.longest or engines.max_model_len, engines.max_model_len)
    if prompt_tokens + sampling.max_tokens > longest:
        room = max(0, longest - prompt_tokens)
        raise BadRequest(
            f"is {sampling.max_tokens}, but the {prompt_tokens} prompt tokens of the policy {name!r} leave room for "
            f"{room} in its {longest}",
            param="sampling.max_tokens",
        )


def _refused(name: str, why: str) -> BadRequest:
    return BadRequest(f"{name!r} {why}", param="search.policies")
