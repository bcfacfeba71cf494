"""Twenty data sets of reasoning-gym at their easiest level, and the table of one model: `python -m research.real.gym`.

Writes worked.jsonl, which `research.real.fine_tune` reads, and test.jsonl, whose groups are the data sets, for
`ramify eval`. What is there already is kept: a run that was stopped goes on. The table of a model:

    python -m research.real.fine_tune --model smollm2 --data runs/gym/worked.jsonl --out runs/gym/policy
    ramify serve --policy runs/gym/policy
    ramify eval --server http://127.0.0.1:8000 --data runs/gym/test.jsonl --problems 1000 --budgets 600 \\
        --methods-file research/configs/gym.toml --out runs/gym/eval        (--resume goes on with it)
    python -m research.real.gym --results runs/gym/eval
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from ramify.rewards.datasets import load
from ramify.rewards.verifier import Example

DATA_SETS = (
    *("base_conversion", "basic_arithmetic", "binary_alternation", "chain_sum", "count_bits"),
    *("decimal_chain_sum", "family_relationships", "fraction_simplification", "gcd", "isomorphic_strings"),
    *("lcm", "leg_counting", "letter_counting", "number_filtering", "number_sorting"),
    *("products", "simple_equations", "spell_backward", "syllogism", "word_sorting"),
)
"""Those of which a small model may learn some, each with a reference answer."""


def examples(split: str, name: str, size: int) -> list[Example]:
    """Return problems of a data set, asked with the library's instruction to answer directly."""
    return load(f"reasoning-gym:{name}?split={split}&size={size}&level=0&system=direct")


def worked(example: Example) -> dict[str, Any]:
    """Return a chat for fine-tuning: the question, and the reference answer in its element."""
    answer = f"<answer>{example.problem['entry']['answer']}</answer>"
    return {"messages": [*_turns(example), {"role": "assistant", "content": answer}]}


def asked(example: Example) -> dict[str, Any]:
    """Return a problem as a row of a data set."""
    about = {"id": example.id, "group": example.group, "task": example.task}
    return {**about, "messages": _turns(example), "problem": example.problem}


def _turns(example: Example) -> list[dict[str, str]]:
    return [message.fields() for message in example.messages]


def write(out: Path, train: int, test: int) -> None:
    """Write a part for each data set, if there is none, then the two files of them all."""
    parts = out / "parts"
    parts.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(DATA_SETS, 1):
        for split, size, row in (("train", train, worked), ("test", test, asked)):
            part = parts / f"{name}-{split}-{size}.jsonl"
            if not part.exists():
                rows = [json.dumps(row(example)) for example in examples(split, name, size)]
                unfinished = part.with_suffix(".unfinished")
                unfinished.write_text("\n".join(rows) + "\n", encoding="utf-8")
                unfinished.replace(part)
        typer.echo(f"{number} of {len(DATA_SETS)}: {name}")
    # Fine-tuning reads from the first chat on, so those of all data sets take turns.
    chats = zip(*(_lines(parts / f"{name}-train-{train}.jsonl") for name in DATA_SETS), strict=True)
    problems = [line for name in DATA_SETS for line in _lines(parts / f"{name}-test-{test}.jsonl")]
    for file, lines in (("worked", [line for turn in chats for line in turn]), ("test", problems)):
        (out / f"{file}.jsonl").write_text("".join(lines), encoding="utf-8")
        typer.echo(f"{out / file}.jsonl: {len(lines)} rows")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


def table(results: Path) -> Iterator[str]:
    """Yield the lines of a table: for each data set, in per cent: greedy answers, and any of four draws."""
    figures = json.loads((results / "results.json").read_text(encoding="utf-8"))["figures"]
    cells = {(figure["group"], figure["method"]): figure for figure in figures}
    yield "| right answers, % | problems | greedy | any of 4 |"
    yield "|---|---|---|---|"
    for group in dict.fromkeys(figure["group"] for figure in figures):
        greedy, any_of_4 = cells[group, "greedy"]["accuracy"], cells[group, "any_of_4"]["any_correct"]
        shares = " | ".join(f"{100 * estimate['mean']:.0f}" for estimate in (greedy, any_of_4))
        yield f"| {group} | {greedy['n']} | {shares} |"


def main(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("runs/gym"),
    train: Annotated[int, typer.Option(help="Worked answers of each data set.")] = 300,
    test: Annotated[int, typer.Option(help="Test problems of each.")] = 50,
    results: Annotated[
        Path | None, typer.Option(exists=True, file_okay=False, help="Print the table of an evaluation.")
    ] = None,
) -> None:
    """Write worked.jsonl and test.jsonl, or print the table."""
    if results is None:
        write(out, train, test)
    else:
        typer.echo("\n".join(table(results)))


if __name__ == "__main__":
    typer.run(main)
