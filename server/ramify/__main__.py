"""`python -m ramify` is the `ramify` command."""

from ramify.cli import app

app(prog_name="ramify")
