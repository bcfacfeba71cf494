"""Make the tables and plots of docs/evidence.md again: every command that the page shows, one after another.

    make evidence      # python -m research.evidence --out runs/evidence

`research/configs/evidence.toml` names the commands. One that was stopped goes on where it was; one that has come to its
end is not run again, unless it has changed. What they made comes together in the folder: `tables.md`, and `plots`.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from pydantic import Field
from rich.console import Console

from ramify.files import replace
from ramify_trainer.learning.config import Section
from ramify_trainer.loop.state import STATE, State

PARTS = Path(__file__).parent / "configs" / "evidence.toml"


class Part(Section):
    """One command, which goes on by itself if it was stopped, and what it leaves in the folder `{out}`."""

    name: str = Field(pattern=r"^[a-z0-9-]{1,24}$")
    title: str
    """Heading of its tables."""
    command: tuple[str, ...] = Field(min_length=1)
    """A program beside this one's interpreter, and its arguments. `{out}` is the folder, `{last NAME}` the release that
    the loop in its folder NAME served last. What it prints is kept as NAME.txt."""
    minutes: int = Field(ge=0)
    """Minutes that it takes on two shared cores."""
    tables: tuple[str, ...] = ()
    """Files in Markdown."""
    plots: tuple[str, ...] = ()


class Parts(Section):
    """The file of parts."""

    parts: tuple[Part, ...]


def parts_in(path: Path) -> tuple[Part, ...]:
    """Read a file of parts. Raises `pydantic.ValidationError`, `tomllib.TOMLDecodeError` and `OSError`."""
    return Parts.model_validate(tomllib.loads(path.read_text(encoding="utf-8"))).parts


def make(parts: Sequence[Part], out: Path, tell: Callable[[str], None]) -> None:
    """Run the parts that are left, and gather what all of them made.

    Raises `subprocess.CalledProcessError` if one fails; those before it are gathered."""
    (out / "plots").mkdir(parents=True, exist_ok=True)
    left = [part for part in parts if not _is_done(part, out)]
    for i, part in enumerate(left):
        minutes = sum(later.minutes for later in left[i:])
        tell(
            f"{part.name}: {part.title}, {part.minutes} minutes; {len(left) - i} parts, {minutes} minutes left"
        )
        _run(part, out)
        _gather([one for one in parts if _is_done(one, out)], out)
    tell(f"all {len(parts)} parts are done")


def _is_done(part: Part, out: Path) -> bool:
    return _done(out).get(part.name) == list(part.command)


def _done(out: Path) -> dict[str, list[str]]:
    """Return the parts that have come to their end, and the command by which each did."""
    path = out / "done.json"
    return json.loads(path.read_bytes()) if path.exists() else {}


def _run(part: Part, out: Path) -> None:
    program, *arguments = (_filled(word, out) for word in part.command)
    beside = Path(sys.executable).with_name(program)
    with (out / f"{part.name}.txt").open("wb") as printed:
        subprocess.run([str(beside), *arguments], stdout=printed, check=True)
    replace(out / "done.json", json.dumps({**_done(out), part.name: part.command}, indent=1).encode())


def _filled(word: str, out: Path) -> str:
    """Put the folder, and the release that a loop served last, in their places."""
    before, found, name = word.partition("{last ")
    if found:
        folder = out / name.removesuffix("}")
        state = State.load(folder / "state" / STATE)
        assert state is not None, f"the loop in {folder} is done"
        return before + str(folder / "weights" / state.incumbent)
    return word.replace("{out}", str(out))


def _gather(done: Sequence[Part], out: Path) -> None:
    texts = [
        f"## {part.title}\n\n{(out / table).read_text(encoding='utf-8').strip()}\n"
        for part in done
        for table in part.tables
    ]
    replace(out / "tables.md", "\n".join(texts).encode())
    for part in done:
        for plot in part.plots:
            shutil.copyfile(out / plot, out / "plots" / f"{part.name}-{Path(plot).name}")


def main(
    out: Annotated[Path, typer.Option(help="Folder; evidence that was stopped there goes on.")] = Path(
        "runs/evidence"
    ),
    config: Annotated[Path, typer.Option(help="TOML file of the parts.")] = PARTS,
    part: Annotated[
        list[str] | None, typer.Option(help="Only this part; may be given several times.")
    ] = None,
) -> None:
    """Make the tables and plots of docs/evidence.md again."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    every = parts_in(config)
    if unknown := set(part or ()) - {one.name for one in every}:
        raise typer.BadParameter(f"no part is called {min(unknown)!r}", param_hint="--part")
    parts = [one for one in every if not part or one.name in part]
    try:
        make(parts, out, console.print)
    except subprocess.CalledProcessError as failed:
        console.print(f"{failed}: the same command goes on from there")
        raise typer.Exit(1) from failed
    console.print(f"tables in {out / 'tables.md'}, plots in {out / 'plots'}")


if __name__ == "__main__":
    typer.run(main)
