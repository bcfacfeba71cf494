"""Golden trees: one small search for each algorithm and mode, kept whole in `tests/golden/search_*.json`.

They show when a change alters what a search does. If it was meant to, write them again and read the difference:

    .venv/bin/python tests/search_goldens.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fakes import FakeTask
from ramify.search.records import Action, BudgetLimits, Sampling
from ramify.search.tree import Tree
from search_worlds import REFINE, STEP, lines, ran, shape, words

FOLDER = Path(__file__).parent / "golden"

TREE = {"action": STEP, "width": 3, "parallel": 2}
CASES: dict[str, dict[str, Any]] = {
    "mcts_path_thompson": {"algorithm": "mcts", **TREE},
    "mcts_path_abandon": {"algorithm": "mcts", "abandon": True, **TREE},
    "mcts_path_puct": {"algorithm": "mcts", "select": "puct", **TREE},
    "mcts_path_commit": {"algorithm": "mcts", "commit": "step", "tau": 1.0, **TREE},
    "mcts_step_puct": {"algorithm": "mcts", "select": "puct", "expand": "step", **TREE},
    "mcts_step_noise": {
        "algorithm": "mcts", "select": "puct", "expand": "step", "commit": "step", "prior": "mean_logprob",
        "prior_temperature": 0.5, "dirichlet_fraction": 0.25, **TREE,
    },
    "mcts_step_widen": {"algorithm": "mcts", "expand": "step", "widen": True, **TREE},
    "mcts_step_rollout": {"algorithm": "mcts", "expand": "step", "leaf": "rollout", **TREE},
    "mcts_step_mixed": {"algorithm": "mcts", "expand": "step", "leaf": "mixed", **TREE},
    "mcts_tokens": {
        "algorithm": "mcts", "select": "puct", "expand": "step", **TREE, "action": Action("token", ()),
    },
    "mcts_chunks": {"algorithm": "mcts", **TREE, "action": Action("chunk", (), 2)},
    "mcts_verifier": {"algorithm": "mcts", "grader": "verifier", "early_stop": "off", "answer": "orm_max", **TREE},
    "mcts_refine": {"algorithm": "mcts", "width": 3, "parallel": 2, "action": REFINE, "max_depth": 3},
    "gumbel_path": {"algorithm": "gumbel", "considered": 4, "action": STEP, "parallel": 2},
    "gumbel_step": {"algorithm": "gumbel", "considered": 4, "expand": "step", "gumbel_scale": 1.0, **TREE},
    "rap": {"algorithm": "rap", **TREE},
    "beam": {"algorithm": "beam", "beam_width": 2, **TREE},
    "dvts": {"algorithm": "dvts", "beam_width": 2, **TREE},
    "dfs": {"algorithm": "dfs", "threshold": 0.35, **TREE},
    "particle": {"algorithm": "particle", "beam_width": 4, "action": STEP, "parallel": 2},
    "best_of_n": {"algorithm": "best_of_n", "parallel": 2},
    "self_consistency": {"algorithm": "self_consistency", "parallel": 2},
}  # fmt: skip


def grown(name: str) -> Tree:
    params = CASES[name]
    rule = lines if params.get("action", STEP) is STEP else words
    task = FakeTask(lambda text: text.startswith("a"))
    limits = BudgetLimits(simulations=10, tokens=150)
    return ran(
        rule, task=task, **params, schedule="waves", sampling=Sampling(max_tokens=12), budget=limits
    ).tree


def document(tree: Tree) -> Any:
    """Everything but the seconds; numbers to 12 digits, so that a C library's last bit decides nothing."""
    return _rounded(shape(tree))


def written(tree: Any) -> str:
    """JSON with one node, completion or candidate a line."""
    parts = []
    for key, value in tree.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ",\n".join(f"  {json.dumps(row)}" for row in value)
            parts.append(f"{json.dumps(key)}: [\n{rows}\n]")
        else:
            parts.append(f"{json.dumps(key)}: {json.dumps(value)}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def path(name: str) -> Path:
    return FOLDER / f"search_{name}.json"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.12g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return [_rounded(item) for item in value] if isinstance(value, list | tuple) else value


if __name__ == "__main__":
    for name in CASES:
        path(name).write_text(written(document(grown(name))))
        print(path(name))
