"""`make docs`: the pages of docs/ that are made from what they describe.

| page | made from |
|---|---|
| configuration.md | the server's settings |
| trainer-configuration.md | the models of the trainer's TOML files |
| cli.md | the commands `ramify` and `ramify-trainer` |
| tree.md | the records that are logged |
| openai.md | its tables: the fields of OpenAI's routes |
| search.md | its tables: the parameters of a search |

`tests/unit/test_reference_pages.py` finds out a page that is out of date.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from ramify.api.openai.fields import FIELDS, MESSAGES, STREAM_OPTIONS, responses_table
from ramify.api.openai.fields import table as fields_table
from ramify.api.wire_log import CorruptRecord, LoggedTree, OutcomeRecord, TreeRecord, described
from ramify.cli import app as server_app
from ramify.cluster.file import FleetFile
from ramify.engine_options import OtherPolicyOptions
from ramify.search.algorithms import ALGORITHMS
from ramify.search.cutting import MAX_STEP_STOPS
from ramify.search.params import PARAMS, bounds, choices
from ramify.search.records import Action, BudgetLimits, SearchParams
from ramify.settings.groups import ApiKey, SearchAlias
from ramify.settings.loading import Settings, variables
from ramify_trainer.cli import app as trainer_app
from ramify_trainer.config import LoopConfig

DOCS = Path(__file__).resolve().parents[1] / "docs"


def pages() -> dict[str, str]:
    """File name in docs/ -> what it must hold."""
    return {
        "configuration.md": configuration(),
        "trainer-configuration.md": trainer_configuration(),
        "cli.md": commands(),
        "tree.md": logged_tree(),
        "openai.md": with_tables("openai.md", OPENAI_TABLES),
        "search.md": with_tables("search.md", parameter_tables()),
        "fleet.md": with_tables("fleet.md", {"fleet file": fleet_file()}),
    }


# -- the server's settings -----------------------------------------------------------------------------------------


def configuration() -> str:
    lines = [
        "# Configuration",
        "",
        "Defaults, then the TOML file of `--config`, then variables, then flags; the later wins. An unknown key is an",
        'error. A list or table in a variable is JSON: `RAMIFY_AUTH__KEYS=\'[{"name": "me", "sha256": "…"}]\'`.',
        "This page is made from the settings' descriptions by `make docs`.",
        "",
    ]
    lines += _settings_table(
        "Top level", [(v, n, f) for v, n, f in variables() if "." not in n and not _is_settings_group(f)]
    )
    for name, field in Settings.model_fields.items():
        if _is_settings_group(field):
            rows = [(v, n, f) for v, n, f in variables() if n.startswith(name + ".")]
            lines += _settings_table(f"`[{name}]`", rows, (field.annotation.__doc__ or "").strip())
    keys = [("", f"auth.keys[].{name}", field) for name, field in ApiKey.model_fields.items()]
    lines += _settings_table("`[[auth.keys]]`", keys, (ApiKey.__doc__ or "").strip())
    aliases = [("", f"aliases.NAME.{name}", field) for name, field in SearchAlias.model_fields.items()]
    lines += [
        "## `[scorers.NAME]`",
        "",
        "The settings of `[scorer]`, for each of several. NAME has 1 to 32 lower-case letters, digits and underscores,",
        "first a letter.",
        "",
    ]
    about = " ".join((OtherPolicyOptions.__doc__ or "").split())
    policies = [
        ("", f"policies.NAME.{name}", field) for name, field in OtherPolicyOptions.model_fields.items()
    ]
    lines += _settings_table("`[policies.NAME]`", policies, about)
    return "\n".join(
        lines + _settings_table("`[aliases.NAME]`", aliases, (SearchAlias.__doc__ or "").strip())
    )


def _is_settings_group(field: Any) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)


def _settings_table(title: str, rows: list[tuple[str, str, Any]], text: str = "") -> list[str]:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for variable, name, field in rows:
        default = "required" if field.is_required() else f"`{_shown_default(field.default)}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {f'`{variable}`' if variable else ''} | {default} | {meaning} |")
    return [*lines, ""]


def _shown_default(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return str(default).lower() if isinstance(default, bool) else str(default)


# -- tables inside pages ------------------------------------------------------------------------------------------


def with_tables(name: str, tables: Mapping[str, Sequence[str]]) -> str:
    """A page as it is, with its tables made anew."""
    page = (DOCS / name).read_text(encoding="utf-8")
    for name, rows in tables.items():
        begin, end = f"<!-- {name}: made by `make docs` -->\n", "<!-- end -->"
        head, _, rest = page.partition(begin)
        page = head + begin + "\n".join(rows) + "\n" + end + rest.partition(end)[2]
    return page


FOUR = ["| field | completions | chat | beside `search` |", "|---|---|---|---|"]
OPENAI_TABLES = {
    "fields": [*FOUR, *fields_table(FIELDS)],
    "messages": [*FOUR, *fields_table(MESSAGES)],
    "stream_options": [*FOUR, *fields_table(STREAM_OPTIONS)],
    "responses": ["| field | taken |", "|---|---|", *responses_table()],
}


# -- the parameters of a search -----------------------------------------------------------------------------------

GROWING = ("algorithm", "width", "parallel", "max_depth", "action", "expand", "widen", "schedule")
ENDING = ("grader", "answer", "early_stop", "early_stop_threshold", "budget")
DERIVED = {
    "max_depth": "as deep as answers can be",
    "early_stop": "`off`; `grader: verifier` `verified`",
    "budget.simulations": "`64`; none beside another limit",
}
"""Defaults that follow from other parameters."""


def parameter_tables() -> dict[str, list[str]]:
    """The tables of docs/search.md: each parameter as its record declares it. One in neither list is of `selecting`."""
    groups: dict[str, list[str]] = {"growing": [], "selecting": [], "ending": []}
    for name in PARAMS:
        top = name.partition(".")[0]
        group = "growing" if top in GROWING else "ending" if top in ENDING else "selecting"
        if name not in ("action", "budget"):
            groups[group].append(parameter_row(name))
    head = ["| parameter | values | default | algorithms | meaning |", "|---|---|---|---|---|"]
    return {group: [*head, *rows] for group, rows in groups.items()}


def parameter_row(name: str) -> str:
    field, kind = PARAMS[name]
    record = {"action": Action, "budget": BudgetLimits}.get(name.rpartition(".")[0], SearchParams)
    if choices(name):
        values = ", ".join(f"`{choice}`" for choice in choices(name))
    elif limits := bounds(name):
        values = f"{limits[0]:g} to {limits[1]:,.10g}"
    else:
        values = {bool: "true, false", str: "text"}.get(kind, f"1 to {MAX_STEP_STOPS} strings")
    having = [a for a, own in ALGORITHMS.items() if name.partition(".")[0] in own.parameters]
    lacking = [a for a in ALGORITHMS if a not in having]
    listed = having if len(having) <= len(lacking) else lacking
    algorithms = ("" if listed is having else "not ") + ", ".join(f"`{a}`" for a in listed)
    own = [f"`{a}` {literal(ALGORITHMS[a].defaults[name])}" for a in having if name in ALGORITHMS[a].defaults]
    default = DERIVED.get(name) or "; ".join([literal(field.default), *own])
    said = described(record)[field.name].replace("`None`", "none")
    needs = field.metadata.get("needs")
    beside = f"With {' or '.join(f'`{needs[0]}: {plain(value)}`' for value in needs[1])}. " if needs else ""
    return f"| `{name}` | {values} | {default} | {algorithms if lacking else 'all'} | {beside}{said} |"


def literal(value: object) -> str:
    if value is None or value == "":
        return "none"
    if isinstance(value, tuple):
        return f"`{json.dumps(value)}`"
    return f"`{value:g}`" if isinstance(value, float) else f"`{plain(value)}`"


def plain(value: object) -> str:
    """Return a choice as a request has it."""
    return str(value).lower()


# -- the commands -------------------------------------------------------------------------------------------------


def commands() -> str:
    lines = ["# Commands", "", "This page is made from the commands themselves by `make docs`.", ""]
    for name, app in (("ramify", server_app), ("ramify-trainer", trainer_app)):
        for path, command in _leaves(name, typer.main.get_command(app)):
            lines += _command(path, command)
    return "\n".join(lines)


def _leaves(path: str, command: Any) -> Iterator[tuple[str, Any]]:
    """Every command that does something, with the words that call it."""
    inner = getattr(command, "commands", None)
    if not inner:
        yield path, command
        return
    if _shown(command):
        yield path, command
    for name, child in inner.items():
        yield from _leaves(f"{path} {name}", child)


def _shown(command: Any) -> list[Any]:
    unsaid = ("--help", "--install-completion", "--show-completion")
    return [p for p in command.params if not p.hidden and not set(p.opts) & set(unsaid)]


def _command(path: str, command: Any) -> list[str]:
    params = _shown(command)
    names = [p.metavar or p.name.upper() for p in params if p.param_type_name == "argument"]
    words = " ".join([path, *(n if p.required else f"[{n}]" for n, p in zip(names, params, strict=False))])
    lines = [f"## `{words}`", "", " ".join((command.help or "").split()), ""]
    if params:
        lines += ["| flag | default | meaning |", "|---|---|---|"]
    for param in params:
        flags = ", ".join(f"`{o}`" for o in (*param.opts, *param.secondary_opts))
        flags = f"`{param.name.upper()}`" if param.param_type_name == "argument" else flags
        meaning = " ".join((getattr(param, "help", None) or "").split())
        if variable := getattr(param, "envvar", None):
            meaning += f" Also `{variable}`."
        lines.append(f"| {flags} | {_default(param)} | {_cell(meaning)} |")
    return [*lines, ""] if params else lines


def _default(param: Any) -> str:
    default = param.default() if callable(param.default) else param.default
    if param.required:
        return "required"
    if isinstance(default, bool):
        return "on" if default else "off"
    return "" if default in (None, "", [], ()) else f"`{default}`"


# -- the logged tree ----------------------------------------------------------------------------------------------


def logged_tree() -> str:
    lines = [
        "# The logged tree",
        "",
        "A logged tree is one JSON object, schema version 1, as `GET /v1/trees/{tree}` has it under `tree`,",
        "`GET /v1/trees?after=` in its lines, `include_tree` in the reply and `ramify trees export` in files. It never",
        "changes after it was logged, so that its sha256 stays true; later verdicts stand beside it. A field marked",
        "*may be absent* is left out if it says nothing; every other field is always there. The OpenAPI document has",
        "the same as the schemas `LoggedTree` and `LogRecord`. This page is made from the records that are logged by",
        "`make docs`.",
        "",
    ]
    inner = dict.fromkeys([LoggedTree, *_models_in(LoggedTree)])
    for model in (*inner, TreeRecord, OutcomeRecord, CorruptRecord):
        lines += [f"## `{model.__name__}`", "", _doc(model), ""]
        lines += ["| field | type | meaning |", "|---|---|---|"]
        for name, field in model.model_fields.items():
            absent = "" if field.is_required() else " *May be absent.*"
            lines.append(
                f"| `{name}` | {_json_type(field.annotation)} | {_cell(field.description or '')}{absent} |"
            )
        lines.append("")
    return "\n".join(lines)


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for field in model.model_fields.values():
        for inner in _parts(field.annotation):
            if inspect.isclass(inner) and issubclass(inner, BaseModel):
                yield inner
                yield from _models_in(inner)


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    for part in get_args(kind):
        yield from _parts(part)


def _json_type(kind: Any) -> str:
    """A field's type as JSON has it."""
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    if _is_union(kind):
        return " or ".join(_json_type(one) for one in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_json_type(get_args(kind)[0])}"
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        return f"[`{kind.__name__}`](#{kind.__name__.lower()})"
    names = {int: "integer", float: "number", str: "text", bool: "boolean", type(None): "null"}
    return names.get(kind, "object")


# -- the trainer's files ------------------------------------------------------------------------------------------


def trainer_configuration() -> str:
    lines = [
        "# The trainer's files",
        "",
        "Each command of `ramify-trainer` that takes `--config` reads one TOML file. An unknown key is an error. This",
        "page is made from the file's models by `make docs`; `trainer/ramify_trainer/configs/loop.toml` is the demo's.",
        "",
    ]
    for table, section in _sections(LoopConfig, ""):
        lines += [f"## `[{table}]`", ""] if table else []
        lines += [_doc(section), "", *_table(section)]
    return "\n".join(lines)


def fleet_file() -> list[str]:
    """The keys of a fleet file, those of its tables by their dotted names."""
    rows = [_table(section)[2:-1] for _, section in _sections(FleetFile, "")]
    names = [f"{table}." if table else "" for table, _ in _sections(FleetFile, "")]
    keys = [
        row.replace("| `", f"| `{name}", 1) for name, part in zip(names, rows, strict=True) for row in part
    ]
    return ["| key | values | default | meaning |", "|---|---|---|---|", *keys]


def _sections(model: type[BaseModel], table: str) -> Iterator[tuple[str, type[BaseModel]]]:
    """A model and the models inside it, under the names of their TOML tables."""
    yield table, model
    for name, field in model.model_fields.items():
        if inner := _inner(field):
            path = f"{table.strip('[]')}.{name}" if table else name
            yield from _sections(inner, f"[{path}]" if get_origin(field.annotation) is tuple else path)


def _inner(field: FieldInfo) -> type[BaseModel] | None:
    """The model that a field holds, alone, in a tuple, or as an alternative to `None`."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((k for k in kinds if inspect.isclass(k) and issubclass(k, BaseModel)), None)


def _table(model: type[BaseModel]) -> list[str]:
    said = _attribute_docstrings(model)
    lines = ["| key | values | default | meaning |", "|---|---|---|---|"]
    for name, field in model.model_fields.items():
        if _inner(field) is None:
            meaning = field.description or said.get(name, "")
            lines.append(f"| `{name}` | {_values(field)} | {_field_default(field)} | {_cell(meaning)} |")
    return [*lines, ""] if len(lines) > 2 else []


def _attribute_docstrings(model: type[BaseModel]) -> dict[str, str]:
    """The strings that stand below the fields of a class and of those it is made from."""
    said: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if issubclass(kind, BaseModel) and kind is not BaseModel:
            said |= described(kind)
    return said


def _values(field: FieldInfo) -> str:
    """The values that may be given: choices, or the kind with its bounds."""
    kinds = get_args(field.annotation) if _is_union(field.annotation) else (field.annotation,)
    shown = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            shown += [f"`{choice}`" for choice in get_args(kind)]
        elif kind is not type(None):
            shown.append(getattr(kind, "__name__", "").lower() if inspect.isclass(kind) else _generic(kind))
    bounds = [f"{sign} {getattr(m, at):g}" for m in _metadata(field) for at, sign in SIGNS if hasattr(m, at)]
    return ", ".join([*dict.fromkeys(shown), *bounds])


SIGNS = (("ge", "≥"), ("gt", ">"), ("le", "≤"), ("lt", "<"))


def _metadata(field: FieldInfo) -> list[Any]:
    """The bounds of a field, those of `PositiveInt | None` too."""
    inside = [m for kind in get_args(field.annotation) for m in getattr(kind, "__metadata__", ())]
    return [*field.metadata, *inside]


def _is_union(annotation: Any) -> bool:
    return get_origin(annotation) in (Union, UnionType)


def _generic(kind: Any) -> str:
    if hasattr(kind, "__metadata__"):
        return str(get_args(kind)[0].__name__)
    return {"Mapping": "table", "dict": "table", "tuple": "list", "list": "list"}.get(
        getattr(get_origin(kind), "__name__", ""), str(kind)
    )


def _field_default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return (
        "none" if default is None else f"`{str(default).lower() if isinstance(default, bool) else default}`"
    )


def _doc(model: type[BaseModel]) -> str:
    return " ".join((model.__dict__.get("__doc__") or "").split())


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def write() -> None:
    for name, text in pages().items():
        (DOCS / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
