"""Examples say only what they checked: their verdicts go into the log, and a trainer may learn from them."""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
import textwrap
from pathlib import Path

import pytest

import ramify_client
from fakes import FakePolicy
from node import NODE, typescript_client

from .world import ALPHABET, FakeEngines, World, a_world, over_network

pytestmark = pytest.mark.anyio
EXAMPLES = Path(__file__).parents[3] / "examples"


async def run(world: World, *command: str) -> str:
    """Return the output of an example beside a server whose model writes letters, and never a right answer."""
    async with over_network(world) as http:
        process = await asyncio.create_subprocess_exec(
            *command,
            str(http.base_url).rstrip("/"),
            env={**os.environ, "RAMIFY_API_KEY": ""},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(60):
            output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


def writing_letters() -> FakeEngines:
    return FakeEngines(policy=FakePolicy(ALPHABET, prompt="3 5 7 8 to 24"))


async def verdicts(world: World) -> list[float]:
    return [
        outcome.outcome for row in await world.logged() for outcome in await world.log.feedback(row.tree_id)
    ]


async def test_the_python_example_does_not_call_a_wrong_answer_right(tmp_path: Path) -> None:
    async with a_world(tmp_path, writing_letters()) as world:
        told = await run(world, sys.executable, str(EXAMPLES / "python_client.py"))
        assert await verdicts(world) == [0.0]
    assert "verdicts: [0.0]" in told


README = (EXAMPLES.parent / "clients" / "python" / "README.md").read_text()
PACKAGE = ramify_client.__doc__ or ""


@pytest.mark.parametrize(
    "example",
    [README.split("```")[1].removeprefix("python"), PACKAGE.split("::\n\n")[1].split("\n\nRead")[0]],
    ids=["README.md", "the package's docstring"],
)
async def test_the_example_that_meets_a_reader_first_runs(tmp_path: Path, example: str) -> None:
    async with a_world(tmp_path, writing_letters()) as world, over_network(world) as http:
        script = textwrap.dedent(example).replace("http://127.0.0.1:8000", str(http.base_url))
        await asyncio.to_thread(exec, script, {})
        assert await world.logged()


async def test_the_typescript_example_does_not_call_a_wrong_answer_right(tmp_path: Path) -> None:
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules" / "ramify-client").symlink_to(typescript_client())
    example = tmp_path / "typescript_client.ts"
    example.write_text((EXAMPLES / "typescript_client.ts").read_text())
    async with a_world(tmp_path, writing_letters()) as world:
        await run(world, str(NODE / "bin" / "node"), str(example))
        assert await verdicts(world) == [0.0]


@pytest.mark.parametrize(
    ("text", "right"),
    [
        ("8 - 5 = 3\n3 * 7 = 21\n21 + 3 = 24\n", True),
        ("8 * 3 = 24\n", False),  # 5 and 7 are left
        ("8 - 5 = 4\n4 * 7 = 28\n28 - 4 = 24\n", False),  # wrong arithmetic
        ("8 * 3 = 24\n24 * 1 = 24\n", False),  # a number of its own
        ("24\n", False),
        ("", False),
    ],
)
def test_the_examples_grade_as_the_rules_of_countdown_do(text: str, right: bool) -> None:
    assert runpy.run_path(str(EXAMPLES / "python_client.py"))["solved"](text) is right
