"""`python -m research.scale`: measure the parameters, check the model, run the sweep; see the package."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from research.scale import report
from research.scale.parameters import MEASURED, defaults


def main(options: argparse.Namespace) -> None:
    console = Console()
    if options.command == "report":
        report.report(defaults(), options.out, console.print)
        console.print(f"{options.out}/report.md")
        return
    from research.scale import check, measure  # they need what only tests install

    if options.command == "measure":
        measure.write(MEASURED, measure.measure())
    else:
        console.print(report.markdown(check.check()), soft_wrap=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m research.scale", description=__doc__)
    parser.add_argument("command", choices=("measure", "check", "report"))
    parser.add_argument("--out", type=Path, default=Path("runs/scale"), help="folder of the report")
    main(parser.parse_args())
