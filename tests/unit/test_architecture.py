"""docs/architecture.md, enforced: which package may import which, and that the light ones stay light.

Imports are read from the syntax trees, so that those inside functions and under TYPE_CHECKING count too.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HOMES = {"ramify": "server", "ramify_trainer": "trainer", "ramify_client": "clients/python"}

BASE = {"search"}
PARTS = BASE | {"extensions", "rewards", "weights", "treelog", "fleet", "engines"}
MAY_IMPORT: dict[str, set[str]] = {
    "search": set(),
    "statistics": set(),
    "tokens": set(),
    "engine_options": set(),
    "extensions": set(),
    "files": set(),
    "objects": {"files"},
    "races": set(),
    "sandbox": set(),
    "rewards": BASE | {"extensions", "sandbox"},
    "weights": BASE | {"files", "objects"},
    "treelog": BASE | {"files", "objects"},
    "fleet": {"treelog"},
    "engines": BASE | {"engine_options", "tokens", "weights", "races"},
    "settings": BASE | {"connections", "engine_options", "extensions", "objects"},
    "connections": set(),
    "logs": set(),
    "launcher": set(),
    "ray_cluster": set(),
    "service": PARTS | {"settings", "objects", "races"},
    "api": PARTS | {"settings", "service", "connections", "logs", "races"},
    "cluster": {
        "fleet",
        "treelog",
        "weights",
        "settings",
        "service",
        "connections",
        "launcher",
        "ray_cluster",
    },
    "evaluation": PARTS | {"settings", "service", "statistics", "races"},
    "bench": PARTS | {"settings", "service", "evaluation", "races"},
    "tuning": {"search", "rewards", "weights", "statistics", "evaluation"},
    "cli": PARTS
    | {
        "settings",
        "objects",
        "service",
        "evaluation",
        "bench",
        "tuning",
        "api",
        "cluster",
        "launcher",
        "ray_cluster",
    },
    "__main__": {"cli"},
}
"""Parts of `ramify` that each part may import; itself and the version in `ramify` it always may."""
TRAINER_MAY_IMPORT = {
    "search",
    "statistics",
    "tokens",
    "extensions",
    "rewards",
    "weights",
    "connections",
    "files",
    "objects",
    "logs",
    "races",
    "launcher",
    "ray_cluster",
}

ONLY_IN = {
    "fastapi": {"ramify.api"},
    "starlette": {"ramify.api"},
    "vllm": {"ramify.engines.vllm"},
    "torch": {"ramify.engines.vllm", "ramify_trainer"},
    "optuna": {"ramify.tuning"},
    "ray": {
        "ramify.ray_cluster",
        "ramify.cluster.actors",
        "ramify.cluster.deployment",
        "ramify_trainer.loop.on_ray",
    },
    "obstore": {"ramify.objects"},
    "sqlalchemy": {"ramify.treelog", "ramify.fleet"},
    "alembic": {"ramify.treelog", "ramify.fleet"},
    "math_verify": {"ramify.rewards"},
    "latex2sympy2_extended": {"ramify.rewards"},
    "sympy": {"ramify.rewards"},
    "research": set(),
}
"""The packages of ours that alone may import a library. `research` is not installed: it may import everything, and
nothing that is installed imports it."""


def modules() -> Iterator[tuple[str, Path]]:
    """Every module of ours by its dotted name."""
    for package, home in HOMES.items():
        for path in sorted((ROOT / home / package).rglob("*.py")):
            yield dotted(path.relative_to(ROOT / home)), path


def dotted(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, package: bool = False) -> set[str]:
    """The dotted names that a module's source imports, in whatever form."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                here = module.split(".")[: None if package else -1]
                base = ".".join([*here[: len(here) - node.level + 1], *filter(None, [base])])
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            if name in ("import_module", "__import__"):
                found.add(str(node.args[0].value))
    return found


def part(name: str) -> str:
    """`ramify.search.tree` → `search`; the package itself gives an empty string."""
    return name.split(".")[1] if "." in name else ""


def faults(module: str, imports: set[str]) -> list[str]:
    """The imports that a module may not have."""
    own = module.split(".")[0]
    bad = [name for name in sorted(imports) if not _allowed(own, module, name)]
    for library, homes in ONLY_IN.items():
        uses = any(name.split(".")[0] == library for name in imports)
        if uses and not any(module == home or module.startswith(f"{home}.") for home in homes):
            bad.append(library)
    return bad


def _allowed(own: str, module: str, name: str) -> bool:
    theirs = name.split(".")[0]
    if theirs not in HOMES:
        return True
    if theirs == own:
        return own != "ramify" or part(name) not in MAY_IMPORT or part(name) in _within(part(module))
    if own == "ramify_trainer":
        return theirs == "ramify_client" or part(name) not in set(MAY_IMPORT) - TRAINER_MAY_IMPORT
    return own == "ramify" and theirs == "ramify_client" and part(module) in ("cli", "evaluation", "bench")


def _within(own: str) -> set[str]:
    return MAY_IMPORT.get(own, set()) | {own}


def test_every_part_of_the_server_has_its_rule() -> None:
    parts = {part(module) for module, _ in modules() if module.startswith("ramify.")}
    assert parts <= set(MAY_IMPORT), "a new part needs a line in MAY_IMPORT and in docs/architecture.md"


def test_no_package_defines_what_is_also_a_module_of_its() -> None:
    """Importing the module later would put it in the place of the function or class of that name."""
    of_modules = {module for module, _ in modules()}
    defined = {
        f"{package}.{node.name}"
        for package, path in modules()
        if path.name == "__init__.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
    }
    assert of_modules & defined == set()


@pytest.mark.parametrize(("module", "path"), list(modules()), ids=lambda value: str(value).rpartition("/")[2])
def test_imports_point_one_way(module: str, path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert faults(module, imported(source, module, package=path.name == "__init__.py")) == []


@pytest.mark.parametrize(
    ("module", "source", "fault"),
    [
        ("ramify.search.tree", "from ramify.rewards import registry", "ramify.rewards"),
        ("ramify.search.tree", "from ramify import settings", "ramify.settings"),
        ("ramify.rewards.tasks", "def f():\n    import ramify.treelog.store", "ramify.treelog.store"),
        ("ramify.rewards.tasks", "from ..weights import manifest", "ramify.weights"),
        ("ramify.rewards", "from . import tasks\nfrom ..api import app", "ramify.api"),
        ("ramify.treelog.store", "import importlib\nimportlib.import_module('ramify.api')", "ramify.api"),
        ("ramify.engines.policy", "import fastapi", "fastapi"),
        ("ramify.engines.policy", "import vllm", "vllm"),
        ("ramify.service.searches", "from starlette.responses import Response", "starlette"),
        ("ramify.service.searches", "from ramify.api import app", "ramify.api"),
        ("ramify.api.app", "import vllm", "vllm"),
        ("ramify.search.tree", "if TYPE_CHECKING:\n    from torch import Tensor", "torch"),
        ("ramify_trainer.loop", "from ramify.treelog.store import Store", "ramify.treelog.store"),
        ("ramify_trainer.loop", "from ramify import engines", "ramify.engines"),
        ("ramify_client.client", "from ramify.search.records import Answer", "ramify.search.records"),
        ("ramify.api.app", "import ramify_client", "ramify_client"),
        ("ramify.cli.loop", "import ramify_trainer.loop", "ramify_trainer.loop"),
        ("ramify_trainer.loop", "from research.bootstrap import run", "research"),
    ],
)
def test_a_forbidden_import_is_noticed(module: str, source: str, fault: str) -> None:
    assert fault in faults(module, imported(source, module, package=module == "ramify.rewards"))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("ramify.engines.vllm.engine", "import vllm, torch\nfrom ramify.search.records import Continuation"),
        ("ramify.api.app", "from ramify import __version__\nfrom ramify.service import searches"),
        ("ramify_trainer.loop", "from ramify.rewards.registry import task\nimport ramify_client, torch"),
        ("ramify.rewards.tasks", "from .errors import BadProblem"),
    ],
)
def test_an_allowed_import_is_left_alone(module: str, source: str) -> None:
    assert faults(module, imported(source, module)) == []


@pytest.mark.parametrize("home", sorted(HOMES.values()))
def test_a_source_folder_holds_one_package_and_no_loose_modules(home: str) -> None:
    entries = {entry.name for entry in (ROOT / home).iterdir() if entry.name != "__pycache__"}
    assert {name for name in entries if name.endswith(".py")} == set()
    assert {name for name in entries if name in HOMES} == {
        package for package, its in HOMES.items() if its == home
    }
    assert not (ROOT / home / "__init__.py").exists()


def test_the_search_needs_nothing_but_the_standard_library() -> None:
    needed = {
        name.split(".")[0]
        for module, path in modules()
        if module.startswith("ramify.search")
        for name in imported(path.read_text(encoding="utf-8"), module, package=path.name == "__init__.py")
    }
    assert needed - sys.stdlib_module_names == {"ramify"}


def test_the_client_needs_httpx_and_pydantic_only() -> None:
    needed = {
        name.split(".")[0]
        for module, path in modules()
        if module.startswith("ramify_client")
        for name in imported(path.read_text(encoding="utf-8"), module, package=path.name == "__init__.py")
    }
    assert needed - sys.stdlib_module_names <= {"httpx", "pydantic", "ramify_client"}


LIGHT = """
import importlib, json, pkgutil, sys
for name in sys.argv[1:]:
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, name + "."):
        if not module.name.endswith(("__main__", ".math_equality")):
            importlib.import_module(module.name)
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""
HEAVY = ("fastapi", "starlette", "torch", "vllm", "transformers", "sqlalchemy", "numpy", "sympy", "ramify")


@pytest.mark.parametrize(
    ("package", "allowed"),
    [("ramify_client", ()), ("ramify.search", ("ramify",)), ("ramify.rewards", ("ramify",))],
)
def test_importing_a_light_package_loads_no_heavy_one(package: str, allowed: tuple[str, ...]) -> None:
    """Modules of `ramify.rewards`, all but the comparison of formulas, which runs in processes of its own."""
    loaded = subprocess.run(
        [sys.executable, "-c", LIGHT, package], check=True, capture_output=True, text=True, timeout=120
    ).stdout
    assert [name for name in HEAVY if f'"{name}"' in loaded and name not in allowed] == []
