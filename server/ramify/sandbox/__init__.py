"""Run a program that nobody trusts, and hand back what it wrote. docs/code.md has the threat model.

| module | what it has |
|---|---|
| `driver` | the inside: process 1 of a sandbox, with the limits and the system call filter |
| `bubblewrap` | the walls: which bubblewrap there is, and how it is called |
| `session` | `Sandbox`: one program in one sandbox, asked for one test after another |
"""

from ramify.sandbox.bubblewrap import Bubblewrap, SandboxFailed, find
from ramify.sandbox.session import Ended, Program, Sandbox

__all__ = ["Bubblewrap", "Ended", "Program", "Sandbox", "SandboxFailed", "find"]
