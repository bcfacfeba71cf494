"""`ramify calibrate`: the calibration of a server's scorer, fitted on answers that a verifier grades."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from ramify.cli.terminal import AsJson, console, errors, fail, print_json, refuse

if TYPE_CHECKING:
    from ramify.evaluation.calibration import JudgedAnswer
    from ramify.rewards.verifier import Example

JUDGES = {
    None: "the policy's own confidence",
    "model": "the release's value model, whose calibration stands in its manifest",
    "trunk": "the release's value head, whose calibration stands in its manifest",
}


def calibrate(
    data: Annotated[str, typer.Option(help="Data set with a verifier, as of `ramify eval`.")],
    server: Annotated[str, typer.Option(help="The server whose scorer it is.")] = "http://127.0.0.1:8000",
    api_key: Annotated[str | None, typer.Option(envvar="RAMIFY_API_KEY", help="Its API key.")] = None,
    problems: Annotated[int, typer.Option(min=1, help="How many problems.")] = 200,
    draws: Annotated[int, typer.Option(min=1, help="Answers drawn to each.")] = 8,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens that the answers to one problem may take.")
    ] = 8000,
    data_seed: Annotated[int, typer.Option(help="Which problems.")] = 0,
    seed: Annotated[int, typer.Option(help="Seed of the draws.")] = 0,
    concurrency: Annotated[int, typer.Option(min=1, help="Problems at once.")] = 16,
    scorer: Annotated[
        str | None, typer.Option(help="Which scorer, if there are several: NAME of its table [scorers.NAME].")
    ] = None,
    a: Annotated[float, typer.Option(help="The server's a now; its setting scorer.a.")] = 1.0,
    b: Annotated[float, typer.Option(help="The server's b now; its setting scorer.b.")] = 0.0,
    as_json: AsJson = False,
) -> None:
    """Draw answers, grade them with the task's verifier, and fit value = sigmoid(a · logit + b) to that.

    Prints the settings to give the scorer, which the server must have. Take problems that nothing was trained on, and
    measure on others.
    """
    from ramify.evaluation.calibration import fit
    from ramify.evaluation.runner import ProblemRefused, SearchFailed
    from ramify.extensions import BadExtension
    from ramify.rewards.datasets import load as load_examples
    from ramify.rewards.errors import BadDataset
    from ramify.service.serving import install
    from ramify.settings import BadSettings, load

    if a == 0:
        refuse("--a: must not be 0")
    try:
        install(load())
        examples = load_examples(data, problems, data_seed)
    except (BadDataset, BadExtension, BadSettings) as error:
        refuse(error)
    try:
        answers = asyncio.run(_answers(server, api_key, examples, draws, tokens, seed, concurrency, scorer))
        found = fit(answers, (a, b))
    except (ProblemRefused, SearchFailed, ValueError) as error:
        fail(error)
    if as_json:
        print_json(
            {"a": found.a, "b": found.b, "answers": len(answers), "auc": found.auc}
            | {"loss": list(found.loss), "brier": list(found.brier)}
        )
        return
    console.print(
        f"# {len(answers)} answers to {len(examples)} problems; AUC {found.auc:.3f}; mean square error "
        f"{found.brier[0]:.3f} -> {found.brier[1]:.3f}; log loss {found.loss[0]:.3f} -> {found.loss[1]:.3f}",
        highlight=False,
        soft_wrap=True,
    )
    table = "scorer" if scorer is None else f"scorers.{scorer}"
    console.print(f"\\[{table}]\na = {found.a:.6g}\nb = {found.b:.6g}", highlight=False)
    if found.a <= 0:
        errors.print("the scorer puts wrong answers above right ones: look at its format and label")


async def _answers(
    server: str,
    api_key: str | None,
    examples: list[Example],
    draws: int,
    tokens: int,
    seed: int,
    concurrency: int,
    scorer: str | None,
) -> list[JudgedAnswer]:
    from ramify.evaluation.backends import connect
    from ramify.evaluation.calibration import judged_answers

    def tell(done: int) -> None:
        end = "\n" if done == len(examples) else "\r"
        errors.print(f"{done} of {len(examples)} problems", end=end, highlight=False)

    async with connect(server, api_key) as backend:
        if (judge := await backend.judge()) != "scorer" and scorer is None:
            raise ValueError(
                f"{server} has no scorer to calibrate (settings, table scorer): its answers are judged by "
                + JUDGES.get(judge, str(judge))
            )
        return await judged_answers(backend, examples, draws, tokens, seed, concurrency, tell, scorer)
