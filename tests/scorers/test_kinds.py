"""Every kind of model that judges, through vLLM: the values are those that its publishers' own recipe gives with
transformers. `make test-scorers`; an engine takes 20 s to start."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from fixtures_engines import START_SECONDS, LiveEngines
from models import write_chat_policy
from ramify.engines import EngineConfig, EngineOptions, ScorerOptions, Serving
from ramify.engines.ports import Recording
from ramify.search.records import State
from scorer_models import (
    write_classifier,
    write_judge,
    write_math_shepherd,
    write_process_reward_model,
    write_token_classifier,
)

pytestmark = [pytest.mark.scorers, pytest.mark.timeout(START_SECONDS + 120)]

TOLERANCE = 1e-3
QUESTION = "What is 1 + 2 + 3?"
STEPS = ("1 + 2 is 3.", "3 + 3 is 6.", "The answer is 6.")
SYSTEM = "Please reason step by step, and put your final answer within \\boxed{}."
OPTIONS = EngineOptions(dtype="float32", compile=False, policy_kv_bytes=1 << 26, value_kv_bytes=1 << 26)


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("policy")
    write_chat_policy(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["Yes", "No"])
    tokenizer.save_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    model.save_pretrained(folder)
    return folder


def states(live: LiveEngines, between: str) -> list[State]:
    """A chat's answer after each of its steps, as a search has them."""
    tokenizer = live.engines.tokenizer
    tokens = tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
    ends, found = [len(tokens)], []
    for step in STEPS:
        tokens = [*tokens, *tokenizer.encode_continuation(step + between)]
        ends.append(len(tokens))
        found.append(State(tokens, ends))
    return found


def longest(live: LiveEngines) -> State:
    """The longest answer that the server takes, in tokens that are the same when they are written again."""
    tokenizer, room = live.engines.tokenizer, live.engines.max_model_len
    prompt = tokenizer.encode_chat([{"role": "user", "content": QUESTION}])
    line = tokenizer.encode_continuation("3\n")
    tokens = [*prompt, *line * room][:room]
    return State(tokens, (len(prompt), room))


def started(policy: Path, **scorer: Any) -> LiveEngines:
    judge = ScorerOptions(**scorer)
    return LiveEngines(
        EngineConfig(policy, serving=Serving(value="scorer"), options=OPTIONS, scorers={"": judge})
    )


def check(live: LiveEngines, between: str, expected: Sequence[float]) -> None:
    """Each state alone, all of them together, and a second time, when prefixes are cached."""
    asked = states(live, between)

    async def values(of: Sequence[State]) -> list[float]:
        return [score.value for score in await live.engines.scorer.score(of)]

    try:
        assert max(b - a for a, b in itertools.pairwise(sorted({*expected}))) > 2 * TOLERANCE, "they differ"
        alone = [live.run(values([state]))[0] for state in asked]
        assert alone == pytest.approx(expected, abs=TOLERANCE)
        for _ in range(2):
            assert live.run(values(asked)) == pytest.approx(expected, abs=TOLERANCE)
        if set(live.engines.by_role) == {"policy"}:
            live.run(values([longest(live)]))
        live.run(live.engines.probe(60))
    finally:
        live.close()


def softmax_at(logits: torch.Tensor, places: Sequence[int], label: int) -> list[float]:
    return [float(logits[place].softmax(-1)[label]) for place in places]


@torch.no_grad()
def test_a_process_reward_model_as_qwen_publishes_it(policy: Path, tmp_path: Path) -> None:
    model = write_process_reward_model(tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    messages = [
        {"role": "system", "content": SYSTEM},
        {"role": "user", "content": QUESTION},
        {"role": "assistant", "content": "<extra_0>".join(STEPS) + "<extra_0>"},
    ]
    ids = tokenizer.apply_chat_template(messages, return_dict=False)
    tag = tokenizer.convert_tokens_to_ids("<extra_0>")
    places = [i for i, token in enumerate(ids) if token == tag]
    expected = softmax_at(model(torch.tensor([ids]))[0], places, 1)
    check(started(policy, kind="model", model=tmp_path), "\n\n", expected)


@torch.no_grad()
def test_good_and_bad_tokens_as_math_shepherd_publishes_them(policy: Path, tmp_path: Path) -> None:
    write_math_shepherd(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids = tokenizer.encode(f"{QUESTION} " + "\n".join(f"{step} ки" for step in STEPS))
    good, bad, tag = (tokenizer.encode(text)[-1] for text in ("+", "-", " ки"))
    places = [i for i, token in enumerate(ids) if token == tag]
    expected = softmax_at(model(torch.tensor([ids])).logits[0][:, [good, bad]], places, 0)
    check(started(policy, kind="model", model=tmp_path, format="math-shepherd"), "\n", expected)


@torch.no_grad()
def test_a_token_classifier_as_trl_trains_it(policy: Path, tmp_path: Path) -> None:
    write_token_classifier(tmp_path)
    model = AutoModelForTokenClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    ids, places = tokenizer.encode(QUESTION, add_special_tokens=False), []
    for step in STEPS:
        ids += tokenizer.encode(step, add_special_tokens=False)
        ids += tokenizer.encode("\n", add_special_tokens=False)
        places.append(len(ids) - 1)
    expected = softmax_at(model(torch.tensor([ids])).logits[0], places, 1)
    check(started(policy, kind="model", model=tmp_path), "\n", expected)


@torch.no_grad()
def test_a_chat_classifier_of_several_labels_of_which_one_is_named(policy: Path, tmp_path: Path) -> None:
    write_classifier(tmp_path)
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)

    def value(answer: str) -> float:
        messages = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": answer}]
        ids = tokenizer.apply_chat_template(messages, return_dict=False)
        return float(model(torch.tensor([ids])).logits[0].softmax(-1)[1])

    texts = ["".join(f"{step}\n" for step in STEPS[: n + 1]) for n in range(len(STEPS))]
    expected = [value(text) for text in texts]
    check(started(policy, kind="model", model=tmp_path, label="helpful"), "\n", expected)


def asked(folder: Path, rubric: str) -> Callable[[str], float]:
    """The probability of Yes against No, by the whole distribution of the next token."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    yes, no = (tokenizer.convert_tokens_to_ids(word) for word in ("Yes", "No"))

    @torch.no_grad()
    def value(answer: str) -> float:
        content = rubric.replace("{question}", QUESTION).replace("{answer}", answer)
        messages = [{"role": "user", "content": content}]
        ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        return float(model(torch.tensor([ids])).logits[0, -1, [yes, no]].softmax(-1)[0])

    return value


@pytest.fixture(params=["another model", "the policy itself"])
def judge(
    request: pytest.FixtureRequest, policy: Path, tmp_path: Path
) -> Iterator[tuple[Path, dict[str, Any]]]:
    if request.param == "the policy itself":
        yield policy, {}
    else:
        yield write_judge(tmp_path), {"model": tmp_path}


def test_a_judge_asked_in_words(policy: Path, judge: tuple[Path, dict[str, Any]]) -> None:
    folder, options = judge
    rubric = "Task: {question}\nAnswer: {answer}\nRight? Yes or No."
    value = asked(folder, rubric)
    expected = [value("".join(f"{step}\n" for step in STEPS[: n + 1])) for n in range(len(STEPS))]
    check(started(policy, kind="judge", rubric=rubric, **options), "\n", expected)


def test_the_whole_path_is_one_request(policy: Path, tmp_path: Path) -> None:
    write_process_reward_model(tmp_path)
    live = started(policy, kind="model", model=tmp_path, a=2.0, b=0.5)
    recording = live.engines.by_role["value"].recording = Recording()
    try:
        live.run(live.engines.scorer.score(states(live, "\n\n")))
        assert [everywhere for call in recording.judgements for _, everywhere in call] == [True]
    finally:
        live.close()
