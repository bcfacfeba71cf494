"""docs/vllm.md lists every name that is imported from vLLM, and tests that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "vllm.md").read_text(encoding="utf-8")


def imported() -> set[str]:
    """Dotted names that the door imports from vLLM."""
    return {
        f"{node.module}.{alias.name}"
        for path in (ROOT / "server" / "ramify" / "engines" / "vllm").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "vllm"
        for alias in node.names
    }


def test_every_name_imported_from_vllm_is_on_the_page_and_no_other() -> None:
    assert set(re.findall(r"^\| `(vllm\.[\w.]+)` \|", PAGE, re.MULTILINE)) == imported()


def test_every_test_on_the_page_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = (path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert named - set(re.findall(r"^(?:async )?def (test_\w+)\(", "".join(sources), re.MULTILINE)) == set()
