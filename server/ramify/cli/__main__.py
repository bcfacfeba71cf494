"""`python -m ramify.cli` is the `ramify` command."""

from ramify.cli import app

app()
