"""Compare Ramify with TreeQuest and its_hub on one server, at equal tokens and at equal seconds.

pip install --no-deps -r research/duels/requirements.txt
python -m research.duels --problems 60 --tokens 1000 --seconds 2
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

from ramify.evaluation.provenance import machine, versions
from ramify.launcher import launched
from ramify.rewards import datasets
from ramify_client import AsyncClient
from research.duels import its_hub
from research.duels.arms import Arm, Budget, Ramify, Sized
from research.duels.report import markdown
from research.duels.run import Duel, Row
from research.duels.treequest import TreeQuest, ab_mcts_a

LIBRARIES = ("treequest", "its_hub")


def arms(temperature: float) -> list[Arm | Sized]:
    """Return what takes part; the first is compared with the others."""
    return [
        Ramify("ramify"),
        Ramify("ramify best_of_n", {"algorithm": "best_of_n"}, {"temperature": temperature}),
        TreeQuest("treequest AB-MCTS-A", ab_mcts_a),
        its_hub.sized("its_hub beam search", its_hub.beam_search, its_hub.BEAM_WIDTH),
        its_hub.sized("its_hub particle filtering", its_hub.particle_filtering),
    ]


async def duels(server: str, options: argparse.Namespace) -> list[Row]:
    """Run every budget."""
    data = f"countdown:{options.split}?numbers={options.numbers}"
    trials = 2 * options.concurrency
    problems = datasets.load(data, options.problems + trials, seed=options.seed)
    budgets = [Budget(tokens=tokens) for tokens in options.tokens]
    budgets += [Budget(seconds=seconds) for seconds in options.seconds]
    progress, rows = Console(stderr=True).print, list[Row]()
    async with AsyncClient(server, max_retries=0, timeout=600) as client:
        duel = Duel(client, options.temperature, options.concurrency)
        for budget in budgets:
            rows += await duel.rows(
                arms(options.temperature), problems[trials:], problems[:trials], budget, progress
            )
    return rows


def main(options: argparse.Namespace) -> None:
    """Run the duels, print their table and keep their rows."""
    try:
        libraries = {name: version(name) for name in LIBRARIES}
    except PackageNotFoundError as error:
        sys.exit(f"{error}: pip install --no-deps -r research/duels/requirements.txt")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory()))
        server = (
            options.server
            or stack.enter_context(launched(["--log", str(folder / "trees.db")], folder / "server.log")).url
        )
        rows = asyncio.run(duels(server, options))
    Console().print(markdown(rows), soft_wrap=True)
    if options.out is not None:
        about = {"machine": machine(), "versions": {**versions(), **libraries}}
        options.out.write_text(json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=1))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m research.duels", description=__doc__.splitlines()[0])
    parser.add_argument("--problems", type=int, default=60)
    parser.add_argument("--tokens", type=int, nargs="*", default=[], help="budgets in generated tokens")
    parser.add_argument("--seconds", type=float, nargs="*", default=[], help="budgets in seconds")
    parser.add_argument("--numbers", default="5,6", help="numbers of a problem")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--seed", type=int, default=0, help="of the problems")
    parser.add_argument("--concurrency", type=int, default=8, help="problems at once")
    parser.add_argument(
        "--temperature", type=float, default=0.4, help="of all but Ramify's own default search"
    )
    parser.add_argument("--server", help="its address; none: one is started with the shipped release")
    parser.add_argument("--out", type=Path, help="a JSON file for every answer's row")
    main(parser.parse_args())
