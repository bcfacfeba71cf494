"""How this command was called, so that advice can be pasted."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path


def command() -> str:
    """`ramify` where the shell finds this one, else its path from here."""
    script = Path(sys.executable).with_name("ramify")
    found = shutil.which("ramify")
    if found and Path(found).resolve() == script.resolve():
        return "ramify"
    here = Path.cwd()
    return str(script.relative_to(here)) if script.is_relative_to(here) else str(script)
