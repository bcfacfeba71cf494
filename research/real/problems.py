"""Arithmetic word problems with worked answers: `python -m research.real.problems`.

Somebody has some things, three to five events change how many, and the last sentence asks for the number. An answer
has a line for each calculation. Some sentences tell a number that does not matter.

    Mia has 24 shells. Mia finds 3 boxes with 8 shells in each. Tom is 11 years old. Mia gives half of the shells to
    Tom. How many shells does Mia have now?

    3*8=24
    24+24=48
    48/2=24
    Answer: 24
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from research.real.rows import asked, worked, write

NAMES = ("Mia", "Tom", "Ana", "Ben", "Zoe", "Leo", "Eva", "Max", "Ida", "Sam")
THINGS = ("shells", "stamps", "cards", "coins", "beads", "stones", "books", "apples", "pens", "seeds")
LARGEST = 400
"""The largest number of things at any time."""
SPLITS = {"test": range(15), "dev": range(15, 30), "train": range(30, 100)}
"""Hundredths of the problems, by a hash of their text."""


@dataclass(frozen=True)
class Event:
    """A sentence, the calculations that follow from it, and the number of things after them."""

    sentence: str
    lines: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class WordProblem:
    """A problem with its worked answer."""

    lines: int
    """Calculations of its answer."""
    question: str
    answer: str
    """The calculations, a line each, and the line `Answer: n`."""
    number: int

    @property
    def split(self) -> str:
        """`train`, `dev` or `test`."""
        hundredth = int(hashlib.sha256(self.question.encode()).hexdigest(), 16) % 100
        return next(split for split, own in SPLITS.items() if hundredth in own)


@dataclass(frozen=True)
class Story:
    """Who has what, and who else there is."""

    name: str
    other: str
    things: str


def more(story: Story, count: int, rng: random.Random) -> Event:
    gained = rng.randint(6, 60)
    return _changed(f"{story.name} buys {gained} more {story.things}.", count, "+", gained)


def fewer(story: Story, count: int, rng: random.Random) -> Event:
    lost = rng.randint(3, max(3, min(60, count - 2)))
    return _changed(f"{story.name} gives {lost} {story.things} to {story.other}.", count, "-", lost)


def boxes(story: Story, count: int, rng: random.Random) -> Event:
    boxes, each = rng.randint(2, 9), rng.randint(3, 14)
    sentence = f"{story.name} finds {boxes} boxes with {each} {story.things} in each."
    return _changed(sentence, count, "+", boxes * each, f"{boxes}*{each}={boxes * each}")


def days(story: Story, count: int, rng: random.Random) -> Event:
    days, each = rng.randint(2, 9), rng.randint(3, 14)
    sentence = f"{story.name} loses {each} {story.things} a day for {days} days."
    return _changed(sentence, count, "-", days * each, f"{days}*{each}={days * each}")


def twice(story: Story, count: int, rng: random.Random) -> Event:
    return _changed(f"{story.other} gives {story.name} as many {story.things} again.", count, "*", 2)


def piles(story: Story, count: int, rng: random.Random) -> Event:
    piles = rng.choice([n for n in range(2, 7) if count % n == 0] or [1])
    sentence = f"{story.name} makes {piles} equal piles of the {story.things} and keeps one pile."
    return _changed(sentence, count, "/", piles)


def share(story: Story, count: int, rng: random.Random) -> Event:
    part, gained = rng.choice((2, 3, 4)), rng.randint(4, 20)
    has, word = part * gained, {2: "half", 3: "a third", 4: "a quarter"}[part]
    sentence = f"{story.other} has {has} {story.things} and gives {word} of them to {story.name}."
    return _changed(sentence, count, "+", gained, f"{has}/{part}={gained}")


EVENTS: Sequence[Callable[[Story, int, random.Random], Event]] = (
    more,
    fewer,
    boxes,
    days,
    twice,
    piles,
    share,
)
BESIDES: Sequence[Callable[[Story, random.Random], str]] = (
    lambda story, rng: f"{story.other} is {rng.randint(6, 60)} years old.",
    lambda story, rng: f"The way home takes {rng.randint(5, 50)} minutes.",
    lambda story, rng: f"A friend of {story.other} has {rng.randint(3, 90)} {story.things}.",
)
"""Sentences about what does not matter."""


def _changed(sentence: str, count: int, sign: str, by: int, *before: str) -> Event:
    after = {"+": count + by, "-": count - by, "*": count * by, "/": count // by}[sign]
    return Event(sentence, (*before, f"{count}{sign}{by}={after}"), after)


def problem(rng: random.Random, events: int) -> WordProblem:
    """Return a random problem of so many events; no two in a row are of one kind."""
    name, other = rng.sample(NAMES, 2)
    story = Story(name, other, rng.choice(THINGS))
    count = rng.randint(10, 80)
    sentences, lines = [f"{story.name} has {count} {story.things}."], list[str]()
    last = None
    while events:
        kind = rng.choice([each for each in EVENTS if each is not last])
        event = kind(story, count, rng)
        if not 1 < event.count <= LARGEST or event.count == count:
            continue
        sentences.append(event.sentence)
        lines += event.lines
        count, last, events = event.count, kind, events - 1
        if rng.random() < 0.25:
            sentences.append(rng.choice(BESIDES)(story, rng))
    sentences.append(f"How many {story.things} does {story.name} have now?")
    answer = "\n".join([*lines, f"Answer: {count}"])
    return WordProblem(len(lines), " ".join(sentences), answer, count)


def problems(split: str, seed: int, count: int, events: Sequence[int]) -> Iterator[WordProblem]:
    """Yield different problems of one split, of each number of events in turn."""
    rng, known = random.Random(f"{seed}:{split}"), set[str]()
    while len(known) < count:
        found = problem(rng, events[len(known) % len(events)])
        if found.split == split and found.question not in known:
            known.add(found.question)
            yield found


def main(
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("runs/real"),
    train: int = 4_000,
    dev: int = 500,
    test: int = 1_000,
    examples: Annotated[
        int, typer.Option(help="Worked answers; of the same problems as train.jsonl.")
    ] = 4_000,
    events: Annotated[str, typer.Option(help="Numbers of events, each in turn.")] = "3,4,5",
    seed: int = 0,
) -> None:
    """Write train.jsonl, dev.jsonl, test.jsonl and, with worked answers, worked.jsonl."""
    numbers = [int(number) for number in events.split(",")]
    for split, count in {"train": train, "dev": dev, "test": test}.items():
        found = problems(split, seed, count, numbers)
        rows = [
            asked(p.question, "math", {"answer": str(p.number)}, f"{split}-{i}", f"{p.lines} lines")
            for i, p in enumerate(found)
        ]
        write(out / f"{split}.jsonl", rows)
    found = problems("train", seed, examples, numbers)
    write(out / "worked.jsonl", [worked(p.question, p.answer) for p in found])


if __name__ == "__main__":
    typer.run(main)
