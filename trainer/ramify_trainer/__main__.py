"""`python -m ramify_trainer`: the command."""

from ramify_trainer.cli import app

app(prog_name="ramify-trainer")
