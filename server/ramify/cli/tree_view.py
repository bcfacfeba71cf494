"""A tree for the terminal: the branches that were visited most, what the search thought of them, what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from rich.markup import escape
from rich.tree import Tree as Drawing

from ramify.cli.terminal import console, fail
from ramify.search.tree import Node, Tree

RIGHT, WRONG, CUT = "[bold green]✓[/]", "[red]✗[/]", "[yellow]…[/]"


def show(tree: Tree, branches: int, outcome: float | None = None) -> None:
    """Print the tree, its answer, and what it cost. outcome: the latest verdict on the answer; None: the tree's own."""
    from ramify.evaluation.reading import right_nodes

    right = asyncio.run(right_nodes(tree))
    console.print(draw(tree, right, branches))
    console.print()
    if tree.answer is None:
        fail(f"no answer: the search ended {tree.status} ({tree.error or tree.stop_reason})")
    if outcome is None and tree.verdict is not None:
        outcome = tree.verdict.outcome
    if outcome is None and right is not None:
        outcome = float(tree.answer.node in right)
    mark = "" if outcome is None else "[bold green]right[/]" if outcome >= 1 else "[red]wrong[/]"
    console.print("[bold]answer[/]", mark)
    console.print(escape(tree.answer.text.rstrip("\n")), highlight=False)
    usage = tree.usage
    judge = "confidence" if tree.params.grader == "confidence" else "value"
    value = "" if tree.answer.value is None else f"{judge} {tree.answer.value:.2f}, "
    console.print(
        f"[dim]{value}{usage.simulations} simulations, {usage.completion_tokens} tokens, {usage.nodes} nodes, "
        f"{usage.seconds:.2f} s; ended by {tree.stop_reason}; {tree.id}[/]",
        highlight=False,
    )


def draw(tree: Tree, right: Collection[int] | None = None, branches: int = 3, lines: int = 40) -> Drawing:
    """Draw the tree's most visited branches, at most `branches` a node and about `lines` in all.

    right: the nodes that end a right answer, if a verifier has judged; every other complete answer is marked wrong.
    The chosen answer's path is always drawn, and starred at its end.
    """
    chosen = {node.id for node in tree.lineage(tree.nodes[tree.answer.node])} if tree.answer else set()
    shown = _most_visited(tree, chosen, branches, lines)
    prompt = escape(tree.prompt.strip()) or "(empty prompt)"
    drawing = Drawing(f"[bold]{prompt}[/]  {_figures(tree.root)}", guide_style="dim")
    pairs = [(tree.root, drawing)]
    while pairs:
        node, branch = pairs.pop()
        for child in _ordered(tree, node):
            if child.id in shown:
                end = tree.answer is not None and child.id == tree.answer.node
                pairs.append((child, branch.add(_label(tree, child, right, child.id in chosen, end))))
        hidden = sum(child not in shown for child in node.children)
        if hidden:
            branch.add(f"[dim]and {hidden} more[/]")
    return drawing


def _most_visited(tree: Tree, chosen: set[int], branches: int, lines: int) -> set[int]:
    """Choose the ids to draw: the chosen path, and then node by node the most visited."""
    shown = {0} | chosen
    candidates = [tree.nodes[i] for i in shown]
    while candidates and len(shown) < lines:
        node = max(candidates, key=lambda n: (n.visits, -n.id))
        candidates.remove(node)
        room = branches - sum(child in shown for child in node.children)
        fresh = [child for child in _ordered(tree, node) if child.id not in shown][: max(0, room)]
        shown |= {child.id for child in fresh}
        candidates += fresh
    return shown


def _ordered(tree: Tree, node: Node) -> list[Node]:
    return sorted(tree.children(node), key=lambda n: (-n.visits, -n.multiplicity, n.id))


def _figures(node: Node) -> str:
    parts = [f"N {node.visits}"]
    if node.mean is not None:
        parts.append(f"Q {node.mean:.2f}")
    if node.value is not None:
        parts.append(f"v {node.value:.2f}")
    if node.policy is not None:
        parts.append(f"by {node.policy}")
    return f"[dim]{'  '.join(parts)}[/]"


def _label(tree: Tree, node: Node, right: Collection[int] | None, chosen: bool, end: bool) -> str:
    text = escape(node.text.strip().replace("\n", " ⏎ ")) or "∎"
    text = f"[bold cyan]{text}[/]" if chosen else text
    times = f" [dim]×{node.multiplicity}[/]" if node.multiplicity > 1 else ""
    star = " [bold cyan]★[/]" if end else ""
    return f"{_mark(node, right)}{text}{times}{star}  {_figures(node)}"


def _mark(node: Node, right: Collection[int] | None) -> str:
    if node.terminal == "truncated":
        return f"{CUT} "
    if node.pruned_by is not None:
        return f"[red]pruned by {escape(node.pruned_by)}[/] "
    if node.terminal is None:
        return ""
    if node.outcome is not None:
        return f"{RIGHT if node.outcome >= 1 else WRONG} "
    return "" if right is None else f"{RIGHT if node.id in right else WRONG} "
