"""A tree for Graphviz: ``curl …?format=dot | dot -Tsvg > tree.svg``."""

from __future__ import annotations

from collections.abc import Iterator

from ramify.search.tree import Node, Tree

LONGEST_LABEL = 60


def dot(tree: Tree) -> str:
    """One box a node: what it says, its visits, its value; the chosen answer's path is bold."""
    return "\n".join(_lines(tree)) + "\n"


def _lines(tree: Tree) -> Iterator[str]:
    chosen = {n.id for n in tree.lineage(tree.nodes[tree.answer.node])} if tree.answer else set()
    yield "digraph tree {"
    yield f"  // {tree.id}, {tree.params.algorithm}, {len(tree.nodes)} nodes"
    yield '  node [shape=box, fontname="monospace", fontsize=10]; rankdir=LR;'
    for node in tree.nodes:
        text = tree.prompt if node.parent is None else node.text
        style = ', style="bold"' if node.id in chosen else ""
        yield f'  n{node.id} [label={quoted(text.strip())}{_figures(node)}"{style}];'
        if node.parent is not None:
            style = ' [style="bold"]' if node.id in chosen else ""
            yield f"  n{node.parent} -> n{node.id}{style};"
    yield "}"


def quoted(text: str) -> str:
    """The opening half of a DOT string, without its closing quote."""
    short = text if len(text) <= LONGEST_LABEL else text[: LONGEST_LABEL - 1] + "…"
    escaped = short.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\l").replace("\r", "")
    return '"' + "".join(c if c.isprintable() else "\ufffd" for c in escaped)


def _figures(node: Node) -> str:
    figures = [f"N={node.visits}"]
    figures += [f"Q={node.mean:.2f}"] if node.mean is not None else []
    figures += [node.terminal] if node.terminal else []
    figures += [f"outcome={node.outcome:g}"] if node.outcome is not None else []
    return "\\n" + " ".join(figures)
