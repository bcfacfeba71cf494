"""The `math` task on real math-verify workers: verdicts, failures, and answers that vote together."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ramify.rewards import registry
from ramify.rewards.errors import CallFailed
from ramify.rewards.grading import close_pools, functions_path, shared_pool
from ramify.rewards.pool import Pool, PoolLimits
from ramify.rewards.tasks import Math
from ramify.search.protocols import GradingFailed, Task

pytestmark = pytest.mark.anyio
CASES = json.loads((Path(__file__).parent / "math_cases.json").read_text())
"""Answers as people and models write them: the situations of public reports, and who reported them."""


class CountedPool(Pool):
    """Knows how often it was called."""

    calls = 0

    async def call(self, name: str, arguments: Mapping[str, Any], deadline: float | None = None) -> Any:
        self.calls += 1
        return await super().call(name, arguments, deadline)


@pytest.fixture(scope="module")
def shared() -> CountedPool:
    return CountedPool(functions_path(Math), PoolLimits(workers=2, deadline=20))


@pytest.fixture(scope="module")
def strict() -> Pool:
    return Pool(functions_path(Math), PoolLimits(workers=1, deadline=1.0))


@pytest.fixture(scope="module", autouse=True)
def _closed(shared: Pool, strict: Pool) -> Iterator[None]:
    yield
    asyncio.run(shared.close())
    asyncio.run(strict.close())


def math(answer: str, pool: Pool) -> Task:
    return registry.task("math", {"answer": answer}, pool)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['reference']} / {case['text']}")
async def test_an_answer_from_a_public_report_is_judged_as_a_person_would(
    shared: Pool, case: dict[str, Any]
) -> None:
    verdict = await math(case["reference"], shared).grade(case["text"])
    assert verdict.outcome == float(case["right"]), case["source"]


async def test_a_reference_is_right_for_itself_in_a_box(shared: Pool) -> None:
    references = sorted({case["reference"] for case in CASES})
    verdicts = await asyncio.gather(*(math(one, shared).grade(f"\\boxed{{{one}}}") for one in references))
    assert [one for one, verdict in zip(references, verdicts, strict=True) if verdict.outcome != 1.0] == []


@pytest.mark.parametrize(
    ("reference", "text"),
    [
        ("1/2", "\\boxed{\\frac12}"),
        ("\\frac{1}{2}", "so it is $0.5$"),
        ("$\\frac{1}{2}$", "Answer: 1/2"),
        ("\\boxed{42}", "The final answer is $42$. I hope it is correct."),
        ("42", "First 7, then 12.\nThe answer is 42."),
        ("42", "\\boxed{41}? No: the second line has a slip in it.\nSo it is\n\\boxed{42}"),
        ("1234", "that makes $1,234$"),
        ("x^2+2x+1", "\\boxed{(x+1)^2}"),
        ("\\{1,2,3\\}", "\\boxed{\\{3,2,1\\}}"),
        ("\\sqrt{2}/2", "\\boxed{\\frac{1}{\\sqrt{2}}}"),
        ("7", "x" * 1_000_000 + " \\boxed{7}"),
    ],
)
async def test_an_equal_answer_is_right_however_it_is_written(
    shared: Pool, reference: str, text: str
) -> None:
    assert (await math(reference, shared).grade(text)).outcome == 1.0


@pytest.mark.parametrize(
    ("reference", "text", "reason"),
    [
        ("42", "\\boxed{41}", "the answer is '41', not '42'"),
        ("42", "\\boxed{42}? No: the second line has a slip in it.\nSo it is\n\\boxed{43}", "'43'"),
        ("42", "\\boxed{41} or \\boxed{42}", "the answer is '41 ; 42'"),
        ("42", "I do not know.", "no answer was found"),
        ("42", "", "no answer was found"),
        ("42", "\\boxed{}", "no answer was found"),
        ("1/2", "\\boxed{1/0}", "not '1/2'"),
        ("x+1", "\\boxed{y+1}", "not 'x+1'"),
    ],
)
async def test_a_wrong_answer_is_a_verdict_with_its_reason(
    shared: Pool, reference: str, text: str, reason: str
) -> None:
    verdict = await math(reference, shared).grade(text)
    assert verdict.outcome == 0.0
    assert reason in verdict.reason
    assert len(verdict.reason) < 300


@pytest.mark.parametrize(
    "text",
    [
        "The answer could be anything except 7.",
        "The answer is 7 squared.",
        "The answer is 7 times larger than we thought.",
        "The final answer is: I cannot determine it, maybe 7.",
        "x = 7 has no solution",
        "Therefore there are no solutions for n < 7",
        "It is not 7, so try again",
        "It is more than 7",
        "Dividing by 7",
        "Therefore x > 7",
        "It is false that it equals 7",
    ],
)
async def test_prose_that_denies_a_number_or_makes_another_of_it_does_not_answer_it(
    shared: Pool, text: str
) -> None:
    assert (await math("7", shared).grade(text)).outcome == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "Since x cannot be negative, the value must be 7.",
        "x cannot be negative so x = 7",
        "There are no repeats, so there are 7 ways.",
        "The answer is 7 because x > 0.",
    ],
)
async def test_what_an_earlier_clause_denies_is_not_the_answer_s(shared: Pool, text: str) -> None:
    assert (await math("7", shared).grade(text)).outcome == 1.0


@pytest.mark.parametrize(
    ("after", "right"),
    [
        (".\nWait, let me recheck. Actually it is 13.", 0.0),
        (".\nHowever, the correct answer is 13.", 0.0),
        ("\nActually the answer isn't 12 but 13.", 0.0),
        ("\nOops. It should be \\(13\\).", 0.0),
        (".\nWait, let me verify: 3*4 = 12. Yes.", 1.0),
        (".\nActually, that is right.", 1.0),
        (". No other value works since 3 is too small.", 1.0),
    ],
)
async def test_a_box_is_superseded_by_what_takes_it_back(shared: Pool, after: str, right: float) -> None:
    assert (await math("12", shared).grade(f"So \\boxed{{12}}{after}")).outcome == right


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("\\boxed{b=2, a=1}", 1.0),
        ("\\boxed{1, 2}", 1.0),
        ("\\boxed{2, 1}", 0.0),
        ("\\boxed{a=2, b=1}", 0.0),
    ],
)
async def test_bare_values_of_several_variables_count_in_their_order(
    shared: Pool, text: str, right: float
) -> None:
    assert (await math("a=1, b=2", shared).grade(text)).outcome == right


async def test_the_example_answer_of_a_prompt_is_not_the_answer(shared: Pool) -> None:
    """Pitfall 19: the text is the answer alone, so an answer that says nothing is wrong whatever was asked."""
    assert (await math("4", shared).grade("")).outcome == 0.0


@pytest.mark.parametrize(
    "text",
    [
        "9**9**9**9",
        "\\boxed{9^{9^{9^{9}}}}",
        "\\boxed{" + "(" * 3000 + "1" + ")" * 3000 + "}",
        "\\boxed{\\int_0^1 \\prod_{i=1}^{10^{9}} x^{x^{i}} dx}",
        "\\boxed{(10^{10^{9}})!}",
        "\\frac{" * 1000 + "1" + "}{1}" * 1000,
        "$" * 1_000_000,
        "\\[ " * 300_000,
        "answer is = " * 100_000,
        "1" * 1_000_000,
        "1 + " * 200_000 + "1",
        "-" * 1_000_000 + "1",
        "٣ + ٤ = ٧",
        "\\boxed{\U0001f600}",
        "\\boxed{\udc80\ud800}",
        "\\boxed{1\x00}",
        "\u202e\\boxed{24}",
    ],
)
async def test_a_hostile_answer_is_wrong_or_fails_in_time_and_is_never_right(strict: Pool, text: str) -> None:
    end: float | str
    async with asyncio.timeout(60):
        try:
            end = (await math("42", strict).grade(text)).outcome
        except CallFailed as failed:
            end = failed.kind
    assert end in (0.0, "deadline", "crash", "error")


@pytest.mark.parametrize(
    "code",
    [
        "__import__('os').mkdir('{}')",
        "().__class__.__base__.__subclasses__()",
        "\\boxed{{__import__('os').mkdir('{}')}}",
        "$\\text{{__import__('os').mkdir('{}')}}$",
        "1 + __import__('os').mkdir('{}')",
        "Answer: 1*(lambda: __import__('os').mkdir('{}'))()",
        "\\boxed{{\\operatorname{{eval}}(__import__('os').mkdir('{}'))}}",
        "\\input{{/etc/passwd}} \\write18{{mkdir {}}} \\boxed{{1}}",
    ],
)
async def test_an_answer_is_never_run_as_code(shared: Pool, tmp_path: Path, code: str) -> None:
    target = tmp_path / "injected"
    verdict = await math("42", shared).grade(code.format(target))
    assert verdict.outcome == 0.0
    assert not target.exists()
    assert "root:" not in verdict.reason


async def test_a_late_verifier_is_a_failure_and_not_a_wrong_answer(strict: Pool) -> None:
    task = math("42", strict)
    with pytest.raises(CallFailed, match="more than 1 s") as late:
        await task.grade("\\boxed{9^{9^{9^{9}}}}")
    assert late.value.kind == "deadline"
    assert (await task.grade("\\boxed{42}")).outcome == 1.0


async def test_a_reference_that_the_grammar_does_not_know_is_a_failure_and_not_a_wrong_answer(
    shared: Pool,
) -> None:
    with pytest.raises(GradingFailed, match="reference answer"):
        await math("\\foo{3}", shared).grade("\\boxed{1}")


def test_grading_works_outside_the_main_thread(shared: Pool) -> None:
    """Pitfall 21: math-verify raises there, and in threads once scored everything 0."""
    outcomes: list[float] = []

    def grade() -> None:
        outcomes.append(asyncio.run(grading()))

    async def grading() -> float:
        return (await math("1/2", shared).grade("\\boxed{0.5}")).outcome

    thread = threading.Thread(target=grade)
    thread.start()
    thread.join()
    assert outcomes == [1.0]


async def test_many_gradings_at_once_all_get_their_own_verdict(shared: Pool) -> None:
    task = math("7", shared)
    verdicts = await asyncio.gather(*(task.grade(f"\\boxed{{{i}}}") for i in range(50)))
    assert [v.outcome for v in verdicts] == [float(i == 7) for i in range(50)]


async def test_equal_answers_have_one_canonical_form(shared: Pool) -> None:
    task = math("1", shared)
    half, decimal, fraction, third, nothing, other, again = [
        await task.final(text)
        for text in (
            "\\boxed{1/2}",
            "it is $0.5$",
            "\\frac{2}{4}",
            "1/3",
            "dunno",
            "\\boxed{\\frac{1}{3}}",
            "\\boxed{1/2}",
        )
    ]
    assert half == decimal == fraction == again
    assert third == other
    assert half != third
    assert nothing is None


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        ("\\boxed{1/2}", "\\fbox{½}", True),
        ("\\boxed{3e8}", "\\boxed{3\\times10^{8}}", True),
        ("\\boxed{-5}", "The answer is −5.", True),
        ("\\boxed{\\{1,2\\}}", "\\boxed{2, 1}", True),
        ("\\boxed{50\\%}", "\\boxed{0.5}", True),
        ("\\boxed{50\\%}", "\\boxed{50}", False),
        ("\\boxed{9.11e-31}", "\\boxed{6.63e-34}", False),
        ("\\boxed{\\{1,2\\}}", "\\boxed{(1,2)}", False),
        ("\\boxed{42}", "42 or 43", False),
        ("\\boxed{2}", "The answer is 2 2/3", False),
        ("\\boxed{\\text{even}}", "\\boxed{\\text{neve}}", False),
    ],
)
async def test_answers_vote_together_exactly_if_they_are_one_answer(
    shared: Pool, one: str, other: str, together: bool
) -> None:
    task = math("1", shared)
    first, second = await task.final(one), await task.final(other)
    assert None not in (first, second)
    assert (first == second) is together


async def test_the_canonical_form_stays_the_same_in_later_calls(shared: CountedPool) -> None:
    task = math("1", shared)
    first = await task.final("\\boxed{0.5}")
    assert await task.final("\\boxed{3}") == "3"
    assert await task.final("\\boxed{1/2}") == first
    calls = shared.calls
    assert await task.final("\\boxed{1/2}") == await task.final("\\boxed{0.5}") == first
    assert shared.calls == calls


async def test_one_answer_that_cannot_be_compared_does_not_spoil_the_others(shared: Pool) -> None:
    task = math("1", shared)
    with pytest.raises(CallFailed) as failed:
        await task.final("\\boxed{9^{9^{9^{9}}}}")
    half, decimal = await task.final("\\boxed{1/2}"), await task.final("\\boxed{0.5}")
    assert half == decimal
    assert failed.value.kind == "deadline"


@pytest.fixture
async def fresh_default() -> AsyncIterator[None]:
    await close_pools()
    yield
    await close_pools()


@pytest.mark.usefixtures("fresh_default")
async def test_the_shared_pool_starts_when_first_needed_and_again_after_it_was_closed() -> None:
    task = registry.task("math", {"answer": "2"})
    assert shared_pool(Math).pids == []
    assert (await task.grade("\\boxed{2}")).outcome == 1.0
    await close_pools()
    assert (await registry.task("math", {"answer": "2"}).grade("\\boxed{2}")).outcome == 1.0
