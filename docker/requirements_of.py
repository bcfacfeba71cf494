"""Print what extras of pyproject.toml require, one a line: a layer of dependencies that source changes leave alone."""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path


def requirements_of(pyproject: Path, extras: list[str]) -> list[str]:
    """Our own extras within extras are followed. Raises `KeyError` for one that is not there."""
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            if requirement.startswith(f"{project['name']}["):
                inner = requirement[len(project["name"]) + 1 : -1].split(",")
                requirements += requirements_of(pyproject, inner)
            else:
                requirements.append(requirement)
    return sorted(set(requirements))


if __name__ == "__main__":
    sys.stdout.write("\n".join(requirements_of(Path(sys.argv[1]), sys.argv[2:])) + "\n")
