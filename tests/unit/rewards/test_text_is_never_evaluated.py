"""No text is evaluated as code, and no caller's regular expression is compiled."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import ramify.rewards

PACKAGE = Path(next(iter(ramify.rewards.__path__)))
MODULES = sorted(PACKAGE.rglob("*.py"))
MATH = {"sympy", "math_verify", "latex2sympy2_extended"}
IMPORTED = {"math_equality": MATH, "gym_inside": {"sympy"}}
"""By module: the first is imported in worker processes only, the second runs in a sandbox."""
EVALUATORS = {"eval", "exec", "compile", "literal_eval", "sympify", "parse_expr", "parse_latex", "__import__"}


def calls(tree: ast.AST) -> Iterator[tuple[str, ast.Call]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            yield name, node


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_module_evaluates_text_as_code(module: Path) -> None:
    for name, call in calls(ast.parse(module.read_text())):
        if name == "compile":  # of a regular expression that is written here
            assert isinstance(call.func, ast.Attribute)
            assert isinstance(call.func.value, ast.Name)
            assert call.func.value.id == "re"
            assert not any(isinstance(node, ast.arg) for node in ast.walk(call))
        else:
            assert name not in EVALUATORS, f"line {call.lineno}"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_a_mathematics_parser_is_imported_in_other_processes_only(module: Path) -> None:
    found = MATH & set(imports(ast.parse(module.read_text())))
    assert found == IMPORTED.get(module.stem, set())


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_no_module_imports_the_comparison_of_formulas_as_it_is_loaded(module: Path) -> None:
    tree = ast.parse(module.read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {node for function in functions for node in ast.walk(function)}
    at_load = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in inside
    ]
    assert "math_equality" not in " ".join(map(ast.unparse, at_load))
