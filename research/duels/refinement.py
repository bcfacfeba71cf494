"""Refinement duels: Ramify's `action: refine` against AB-MCTS-A of TreeQuest, on one server, with one feedback.

pip install --no-deps -r research/duels/requirements.txt
python -m research.duels.refinement --server http://127.0.0.1:8000 --data 'code:mbpp?file=mbpp.jsonl' --tokens 4000

With `--release DIR` in place of `--server` it starts one, and asks for better answers in that release's own words.

Both draw whole answers from the same policy, better them after the same prompts, and score them by the same verifier,
which of a code problem has only the public tests: a score is the share that passes, and 1 ends the search. Each gives
the answer of its highest score, which is graded by all tests.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from ramify.evaluation.provenance import machine, versions
from ramify.launcher import launched
from ramify.rewards import datasets, registry
from ramify.rewards.verifier import Example
from ramify.service.refinement import LONGEST_FEEDBACK, TEMPLATE, filled
from ramify.weights import load_release
from ramify_client import AsyncClient
from ramify_client.calls import Call
from research.duels.arms import Arm, Budget
from research.duels.engine import Engine
from research.duels.report import markdown
from research.duels.run import Duel, Row
from research.duels.treequest import ACTION, ab_mcts_a


@dataclass(frozen=True, slots=True)
class Rules:
    """How answers are drawn and asked to be bettered, by every arm alike."""

    template: str = TEMPLATE
    max_tokens: int = 512
    temperature: float = 0.8
    parallel: int = 8
    """Answers in flight."""


def public(example: Example) -> dict[str, Any]:
    """Return the problem as searches may know it: of code without its hidden tests, by the share of the others."""
    if example.task != "code" or not example.problem.get("public"):
        return dict(example.problem)
    return {**example.problem, "hidden": [], "scoring": "share"}


@dataclass(frozen=True, slots=True)
class Ramify:
    """A search of the server itself."""

    name: str
    search: Mapping[str, Any]
    rules: Rules

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        example, limit = engine.example, {"tokens": budget.tokens, "seconds": budget.seconds}
        assert example is not None
        asked: dict[str, Any] = {"messages": turns(example)} if example.messages else {}
        result = await engine.client.search(
            None if example.messages else example.prompt,
            **asked,
            task={"name": example.task, "problem": public(example)},
            search={
                "grader": "verifier",
                "answer": "orm_max",
                "parallel": self.rules.parallel,
                "budget": {name: value for name, value in limit.items() if value is not None},
                **self.search,
            },
            sampling={"temperature": self.rules.temperature, "max_tokens": self.rules.max_tokens},
            defaults=False,
            train=False,
        )
        engine.tokens += result.usage.completion_tokens
        return result.answer.text if result.answer else None


@dataclass(frozen=True, slots=True)
class Node:
    """A whole answer, its score, and what is said of it."""

    text: str
    score: float
    feedback: str


@dataclass(frozen=True, slots=True)
class TreeQuest:
    """An algorithm of TreeQuest, asked for up to `rules.parallel` answers at a time until the budget is spent."""

    name: str
    make: Callable[[], Any]
    rules: Rules

    async def answer(self, engine: Engine, budget: Budget) -> str | None:
        algorithm, began = self.make(), time.monotonic()
        state, nodes = algorithm.init_tree(), list[Node]()
        author = Author(engine, self.rules)
        # An answer that is begun may take `max_tokens`, as the server's search reserves them.
        while size := min(self.rules.parallel, self._room(engine, budget, time.monotonic() - began)):
            state, trials = algorithm.ask_batch(state, size, [ACTION])
            drawn = await asyncio.gather(*(author.write(trial.parent_state) for trial in trials))
            for trial, node in zip(trials, drawn, strict=True):
                state = algorithm.tell(state, trial.trial_id, (node, node.score))
            nodes += drawn
            if any(node.score >= 1 for node in drawn):
                break
        return max(nodes, key=lambda node: node.score).text if nodes else None

    def _room(self, engine: Engine, budget: Budget, seconds: float) -> int:
        if budget.tokens is None:
            return budget.room(engine.tokens, 0, seconds)
        return max(0, budget.tokens - engine.tokens) // self.rules.max_tokens


@dataclass(frozen=True, slots=True)
class Author:
    """The policy behind a server, which writes an answer to one problem, or a better one."""

    engine: Engine
    rules: Rules

    async def write(self, parent: Node | None) -> Node:
        """Draw an answer, better than the parent's if there is one, and have it judged."""
        example = self.engine.example
        assert example is not None
        text = await (self._turn if example.messages else self._text)(example, parent)
        task = registry.task(example.task, public(example))
        score = (await task.grade(text)).outcome
        feedback = "" if score >= 1 else (await task.feedback(text, score))[:LONGEST_FEEDBACK]
        return Node(text, score, feedback)

    async def _turn(self, example: Example, parent: Node | None) -> str:
        said = turns(example)
        if parent is not None:
            request = filled(self.rules.template, prompt="", answer=parent.text, feedback=parent.feedback)
            said += [{"role": "assistant", "content": parent.text}, {"role": "user", "content": request}]
        choice = await self._asked("/v1/chat/completions", {"messages": said})
        return str(choice["message"]["content"] or "")

    async def _text(self, example: Example, parent: Node | None) -> str:
        prompt = example.prompt
        if parent is not None:
            prompt = filled(self.rules.template, prompt=prompt, answer=parent.text, feedback=parent.feedback)
        return str((await self._asked("/v1/completions", {"prompt": prompt}))["text"])

    async def _asked(self, path: str, body: Mapping[str, Any]) -> Any:
        asked = {**body, "temperature": self.rules.temperature, "max_tokens": self.rules.max_tokens}
        call: Call[Any] = Call("POST", path, json.loads, asked, repeatable=False)
        reply = await self.engine.client.send(call)
        self.engine.tokens += reply["usage"]["completion_tokens"]
        return reply["choices"][0]


def turns(example: Example) -> list[dict[str, str]]:
    """Return a problem's messages as a request has them."""
    return [message.fields() for message in example.messages]


def arms(rules: Rules) -> list[Arm]:
    """Return what takes part; the first is compared with the others."""
    refine = {"algorithm": "mcts", "action": {"kind": "refine", "template": rules.template}}
    return [
        Ramify("ramify refine", refine, rules),
        Ramify("ramify best_of_n", {"algorithm": "best_of_n"}, rules),
        TreeQuest("treequest AB-MCTS-A", ab_mcts_a, rules),
    ]


def words(options: argparse.Namespace) -> str:
    """Return the words in which a better answer is asked for."""
    if options.template is not None:
        return str(options.template)
    release = options.release and load_release(options.release)
    return release.manifest.refine_template or TEMPLATE if release else TEMPLATE


async def duels(server: str, options: argparse.Namespace) -> list[Row]:
    """Run every budget."""
    rules = Rules(words(options), options.max_tokens, options.temperature, options.parallel)
    problems: Sequence[Example] = datasets.load(options.data, options.problems, seed=options.seed)
    progress, rows = Console(stderr=True).print, list[Row]()
    async with AsyncClient(server, max_retries=0, timeout=600) as client:
        duel = Duel(client, options.temperature, options.concurrency)
        for tokens in options.tokens:
            rows += await duel.rows(arms(rules), problems, (), Budget(tokens=tokens), progress)
    return rows


def main(options: argparse.Namespace) -> None:
    """Run the duels, print their table and keep their rows."""
    try:
        ab_mcts_a()
    except ImportError as error:
        sys.exit(f"{error}: pip install --no-deps -r research/duels/requirements.txt")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        flags = ["--release", str(options.release), "--log", str(folder / "trees.db")]
        server = options.server or stack.enter_context(launched(flags, folder / "server.log")).url
        rows = asyncio.run(duels(server, options))
    Console().print(markdown(rows), soft_wrap=True)
    if options.out is not None:
        about = {"machine": machine(), "versions": versions()}
        options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m research.duels.refinement", description=__doc__.splitlines()[0]
    )
    engine = parser.add_mutually_exclusive_group(required=True)
    engine.add_argument("--server", help="its address")
    engine.add_argument("--release", type=Path, help="a release, for which a server is started")
    parser.add_argument("--data", required=True, help="a data set whose task gives feedback")
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--tokens", type=int, nargs="+", required=True, help="budgets in generated tokens")
    parser.add_argument("--template", help="words in which a better answer is asked for; none: the release's")
    parser.add_argument("--max-tokens", type=int, default=512, help="of one answer")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--parallel", type=int, default=8, help="answers in flight of one search")
    parser.add_argument("--concurrency", type=int, default=4, help="problems at once")
    parser.add_argument("--seed", type=int, default=0, help="of the problems")
    parser.add_argument("--out", type=Path, help="a JSON file for every answer's row")
    main(parser.parse_args())
