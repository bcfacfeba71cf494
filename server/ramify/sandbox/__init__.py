"""Run a program that nobody trusts, and hand back what it wrote. docs/code.md has the threat model.

| module | what it has |
|---|---|
| `system_calls` | what the kernel refuses to a program |
| `driver` | the inside: process 1 of a sandbox, which starts a process for each test |
| `bubblewrap` | the walls: which bubblewrap there is, and how it is called |
| `streams` | what goes to a test and comes from it |
| `session` | `Sandbox`: one program after another, on one test after another, each within its limits |
| `probe` | whether all this works here |
"""

from ramify.sandbox.bubblewrap import Bubblewrap, SandboxFailed, find
from ramify.sandbox.probe import Probe
from ramify.sandbox.session import Ended, Program, Sandbox

__all__ = ["Bubblewrap", "Ended", "Probe", "Program", "Sandbox", "SandboxFailed", "find"]
