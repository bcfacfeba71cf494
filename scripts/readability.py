"""Measure how the code reads: sizes of modules and functions, number of classes, import cycles, and the English.

One table in Markdown, a column a package. Lines are those of files, blank ones and comments included.
"""

from __future__ import annotations

import argparse
import ast
import re
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

PACKAGES = {
    "server": "server/ramify",
    "trainer": "trainer/ramify_trainer",
    "client": "clients/python/ramify_client",
}
TINY = 60
"""Lines below which a module counts as tiny."""
HEADLESS = re.compile(r"(Of|That|What|Whether)\b")
"""First words of a docstring that make it a fragment."""


@dataclass(frozen=True)
class Module:
    """One file. `name` is dotted, from its package on."""

    name: str
    lines: int
    tree: ast.Module
    text: str

    @property
    def docstrings(self) -> list[str]:
        """The docstrings of module, classes and functions, and the strings that follow an attribute."""
        return [
            node.value.value
            for node in ast.walk(self.tree)
            if isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ]

    def count(self, *kinds: type[ast.AST]) -> int:
        return sum(isinstance(node, kinds) for node in ast.walk(self.tree))


def read(root: Path) -> list[Module]:
    """Every module below `root`."""
    return [
        Module(_dotted(path.relative_to(root.parent)), text.count("\n"), ast.parse(text), text)
        for path in sorted(root.rglob("*.py"))
        for text in [path.read_text(encoding="utf-8")]
    ]


def _dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def functions(modules: list[Module]) -> list[int]:
    """The lengths of all functions, in lines."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for module in modules
        for node in ast.walk(module.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


def cycles(modules: list[Module]) -> list[list[str]]:
    """Groups of modules that import each other while they load (Tarjan's strongly connected components)."""
    names = {module.name for module in modules}
    edges = {module.name: set(_imported_at_load(module, names)) - {module.name} for module in modules}
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    groups: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in edges[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            at = stack.index(name)
            if len(stack) - at > 1:
                groups.append(sorted(stack[at:]))
            del stack[at:]

    for name in edges:
        if name not in index:
            visit(name)
    return groups


def _imported_at_load(module: Module, names: set[str]) -> Iterator[str]:
    """The modules among `names` that `module` imports at its top level, outside `if TYPE_CHECKING`."""
    for node in module.tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and not node.level:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield whole if whole in names else node.module if node.module in names else module.name


def words(texts: list[str]) -> list[str]:
    """The words of texts, in lower case."""
    return [word for text in texts for word in re.findall(r"[a-z']+", text.lower())]


def per(count: int, whole: int, unit: int) -> str:
    return f"{unit * count / whole:.1f}" if whole else "-"


def column(modules: list[Module]) -> dict[str, str]:
    """The figures of one package."""
    lines = [module.lines for module in modules]
    lengths = functions(modules)
    total = sum(lines)
    docstrings = [text for module in modules for text in module.docstrings]
    comments = sum(len(re.findall(r"^\s*#", module.text, re.MULTILINE)) for module in modules)
    everything = words([module.text for module in modules])
    tiny = sum(size < TINY for size in lines)
    return {
        "lines": str(total),
        "modules": str(len(modules)),
        "lines a module: median, p90, most": _spread(lines),
        f"modules under {TINY} lines, %": per(tiny, len(modules), 100),
        "lines a function: median, p90, most": _spread(lengths),
        "classes per 1,000 lines": per(sum(m.count(ast.ClassDef) for m in modules), total, 1000),
        "comment lines per 1,000 lines": per(comments, total, 1000),
        "import cycles at load": str(len(cycles(modules))),
        '"where" per 10,000 words': per(everything.count("where"), len(everything), 10_000),
        "docstrings that begin with Of, That, What, Whether": str(
            sum(HEADLESS.match(text.strip()) is not None for text in docstrings)
        ),
    }


def _spread(sizes: list[int]) -> str:
    ranked = sorted(sizes)
    return f"{statistics.median(ranked):.0f}, {ranked[int(0.9 * (len(ranked) - 1))]}, {ranked[-1]}"


def table(root: Path) -> Iterator[str]:
    """The lines of the table, then those of the docs' figures."""
    columns = {name: column(read(root / folder)) for name, folder in PACKAGES.items()}
    yield "| | " + " | ".join(columns) + " |"
    yield "|---|" + "---:|" * len(columns)
    for row in next(iter(columns.values())):
        yield f"| {row} | " + " | ".join(figures[row] for figures in columns.values()) + " |"
    pages = sorted((root / "docs").glob("*.md"))
    prose = words([page.read_text(encoding="utf-8") for page in pages])
    where = per(prose.count("where"), len(prose), 10_000)
    yield f'\ndocs: {len(pages)} pages, {len(prose)} words, "where" {where} in 10,000'


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=Path(__file__).parents[1],
        help="a checkout; by default this one",
    )
    folder = parser.parse_args().folder
    if missing := [name for name in PACKAGES.values() if not (folder / name).is_dir()]:
        parser.error(f"{folder} is not a checkout: {missing[0]} is missing")
    print("\n".join(table(folder)))  # noqa: T201
