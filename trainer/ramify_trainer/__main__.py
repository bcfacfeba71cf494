"""`python -m ramify_trainer`, as `torchrun -m` starts it: the command."""

from ramify_trainer.cli import app

app(prog_name="ramify-trainer")
