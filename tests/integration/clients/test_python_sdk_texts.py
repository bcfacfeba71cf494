"""OpenAI's Python SDK: completions, chats and models, whole and streamed."""

from __future__ import annotations

import openai
import pytest

from server_process import ServerProcess

from .sdk_requests import CHAT, KEY, MODEL, PROMPT

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(900)]


def test_a_completion_has_its_text_usage_and_reason(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=40, seed=1)
    assert (answer.object, answer.model, answer.id[:5]) == ("text_completion", MODEL, "cmpl-")
    assert " = " in answer.choices[0].text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 8
    assert answer.usage.total_tokens == 8 + answer.usage.completion_tokens
    assert answer._request_id


def test_without_max_tokens_a_completion_has_at_most_16(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, extra_body={"ignore_eos": True})
    assert answer.usage is not None
    assert (answer.usage.completion_tokens, answer.choices[0].finish_reason) == (16, "length")


def test_a_seed_repeats_an_answer_and_its_choices_differ(client: openai.OpenAI) -> None:
    first, second = (
        client.completions.create(model=MODEL, prompt=PROMPT, n=8, max_tokens=6, seed=-7) for _ in range(2)
    )
    texts = [choice.text for choice in first.choices]
    assert texts == [choice.text for choice in second.choices]
    assert [choice.index for choice in first.choices] == list(range(8))
    assert len(set(texts)) > 1


def test_prompts_may_be_texts_or_token_ids_in_batches(client: openai.OpenAI) -> None:
    texts = client.completions.create(model=MODEL, prompt=[PROMPT, "4 6 8 to 4\n"], n=2, max_tokens=3)
    assert [choice.index for choice in texts.choices] == [0, 1, 2, 3]
    one = client.completions.create(model=MODEL, prompt=[1, 5, 6], max_tokens=3, temperature=0)
    two = client.completions.create(model=MODEL, prompt=[[1, 5, 6], [1, 7]], max_tokens=3, temperature=0)
    assert one.choices[0].text == two.choices[0].text
    assert two.usage is not None
    assert two.usage.prompt_tokens == 5


def test_logprobs_are_of_the_tokens_written(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=5, logprobs=2, temperature=1)
    told = answer.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens) == answer.choices[0].text
    assert all(value <= 0 for value in told.token_logprobs)
    assert all(2 <= len(top) <= 3 for top in told.top_logprobs)
    assert told.text_offset == [sum(map(len, told.tokens[:i])) for i in range(5)]


def test_echo_puts_the_prompt_first_and_scores_it(client: openai.OpenAI) -> None:
    scored = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=0, echo=True, logprobs=1)
    assert scored.choices[0].text == PROMPT
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.token_logprobs is not None
    assert told.token_logprobs[0] is None
    assert all(value < 0 for value in told.token_logprobs[1:])
    more = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=2, echo=True)
    assert more.choices[0].text.startswith(PROMPT)


def test_stop_strings_end_a_completion_and_are_not_part_of_it(client: openai.OpenAI) -> None:
    answer = client.completions.create(model=MODEL, prompt=PROMPT, stop=["=", "\n"], max_tokens=20)
    assert answer.choices[0].finish_reason == "stop"
    assert "=" not in answer.choices[0].text


def test_biases_and_penalties_change_what_is_written(client: openai.OpenAI) -> None:
    biased = client.completions.create(model=MODEL, prompt=PROMPT, logit_bias={"5": 100}, max_tokens=4)
    assert len(set(biased.choices[0].text.split())) == 1
    free, punished = (
        client.completions.create(
            model=MODEL,
            prompt=PROMPT,
            temperature=0,
            max_tokens=60,
            presence_penalty=penalty,
            frequency_penalty=penalty,
            extra_body={"ignore_eos": True},
        )
        for penalty in (0, 2)
    )
    assert free.choices[0].text != punished.choices[0].text


@pytest.mark.parametrize("chat", [False, True])
def test_a_stream_says_in_chunks_what_the_whole_answer_says(client: openai.OpenAI, chat: bool) -> None:
    if chat:
        whole = client.chat.completions.create(model=MODEL, messages=CHAT, seed=3)  # type: ignore[arg-type]
        text = whole.choices[0].message.content
        chunks = list(
            client.chat.completions.create(
                model=MODEL,
                messages=CHAT,  # type: ignore[arg-type]
                seed=3,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        assert (chunks[0].choices[0].delta.role, chunks[0].choices[0].delta.content) == ("assistant", "")
        written = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    else:
        plain = client.completions.create(model=MODEL, prompt=PROMPT, max_tokens=60, seed=3)
        text = plain.choices[0].text
        chunks = list(  # type: ignore[arg-type]
            client.completions.create(
                model=MODEL,
                prompt=PROMPT,
                max_tokens=60,
                seed=3,
                stream=True,
                stream_options={"include_usage": True},
            )
        )
        written = "".join(c.choices[0].text for c in chunks if c.choices)  # type: ignore[attr-defined]
    assert written == text
    assert len(chunks) > 3  # on a busy machine vLLM joins what has piled up
    assert len({(c.id, c.created) for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert all(c.usage is None for c in chunks[:-1])
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens > 5


def test_a_stream_of_several_choices_with_logprobs(client: openai.OpenAI) -> None:
    chunks = list(
        client.completions.create(model=MODEL, prompt=PROMPT, n=3, logprobs=1, max_tokens=4, stream=True)
    )
    assert {c.choices[0].index for c in chunks} == {0, 1, 2}
    for c in chunks:
        assert c.choices[0].logprobs is not None


def test_a_chat_goes_through_the_models_template(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=MODEL,
        messages=[
            {"role": "developer", "content": "Reach the target."},
            {"role": "user", "content": [{"type": "text", "text": "3 5 7 8 to 24"}]},
        ],
        max_completion_tokens=40,
        logprobs=True,
        top_logprobs=2,
        n=2,
    )
    assert (answer.object, answer.id[:9]) == ("chat.completion", "chatcmpl-")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 8
    for choice in answer.choices:
        assert choice.message.role == "assistant"
        assert choice.logprobs is not None
        assert choice.logprobs.content is not None
        tokens = [t.token for t in choice.logprobs.content if t.token != "</s>"]
        assert "".join(tokens) == choice.message.content
        assert all(len(t.top_logprobs) == 2 for t in choice.logprobs.content)


def test_models_are_listed_and_found(client: openai.OpenAI) -> None:
    model, *names = client.models.list()
    assert (model.id, model.owned_by) == (MODEL, "ramify")
    assert f"{MODEL}:best-of-n" in [name.id for name in names]
    assert client.models.retrieve(MODEL) == model
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-4")


@pytest.mark.anyio
async def test_the_async_client_streams_too(server: ServerProcess) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=CHAT,  # type: ignore[arg-type]
            stream=True,
        )
        text = "".join([c.choices[0].delta.content or "" async for c in stream])
    assert " = " in text
