"""GSM8K in the form that the other commands take: `python -m research.real.gsm8k`.

    for split in train test; do
        curl -O https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data/$split.jsonl
    done
    python -m research.real.gsm8k --source . --out runs/gsm8k

Reads train.jsonl and test.jsonl, with `question` and `answer`, as their publishers have them. The last 500 problems of
`train` become the dev split. A worked answer keeps its lines; calculator marks (`<<48/2=24>>`) go, and `#### 72`
becomes `Answer: 72`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated

import typer

from research.real.rows import asked, worked, write

DEV = 500
MARK = re.compile(r"<<[^>]*>>")
ENDING = "Answer: "


def read(file: Path) -> list[tuple[str, str]]:
    """Return the questions of a file of JSON lines, each with its worked answer, which ends with `Answer: n`."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        lines, number = MARK.sub("", row["answer"]).rsplit("####", 1)
        found.append((row["question"], f"{lines.strip()}\n{ENDING}{number.strip().replace(',', '')}"))
    return found


def main(
    source: Annotated[Path, typer.Option(help="Folder of train.jsonl and test.jsonl.")],
    out: Annotated[Path, typer.Option(help="Folder of the files.")] = Path("runs/gsm8k"),
) -> None:
    """Write train.jsonl, dev.jsonl, test.jsonl and, with worked answers, worked.jsonl."""
    train, test = read(source / "train.jsonl"), read(source / "test.jsonl")
    splits = {"train": train[:-DEV], "dev": train[-DEV:], "test": test}
    for split, own in splits.items():
        rows = [
            asked(question, "math", {"answer": answer.rsplit(ENDING, 1)[1]}, f"{split}-{i}", "gsm8k")
            for i, (question, answer) in enumerate(own)
        ]
        write(out / f"{split}.jsonl", rows)
    write(out / "worked.jsonl", [worked(*each) for each in splits["train"]])


if __name__ == "__main__":
    typer.run(main)
