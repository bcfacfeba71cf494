"""The page of documentation, made from the field descriptions."""

from __future__ import annotations

from typing import Any

from ramify.settings.groups import ApiKey, SearchAlias, SettingsGroup
from ramify.settings.top import Settings, variables


def document() -> str:
    """`docs/configuration.md`."""
    lines = [
        "# Configuration",
        "",
        "Defaults, then the TOML file of `--config`, then variables, then flags; the later wins. An unknown key is an",
        'error. A list or table in a variable is JSON: `RAMIFY_AUTH__KEYS=\'[{"name": "me", "sha256": "…"}]\'`.',
        "This page is made from `server/ramify/settings` by `python -m ramify.settings > docs/configuration.md`.",
        "",
    ]
    lines += _table("Top level", [(v, n, f) for v, n, f in variables() if "." not in n and not _is_group(f)])
    for name, field in Settings.model_fields.items():
        if _is_group(field):
            rows = [(v, n, f) for v, n, f in variables() if n.startswith(name + ".")]
            lines += _table(f"`[{name}]`", rows, (field.annotation.__doc__ or "").strip())
    keys = [("", f"auth.keys[].{name}", field) for name, field in ApiKey.model_fields.items()]
    lines += _table("`[[auth.keys]]`", keys, (ApiKey.__doc__ or "").strip())
    aliases = [("", f"aliases.NAME.{name}", field) for name, field in SearchAlias.model_fields.items()]
    return "\n".join(lines + _table("`[aliases.NAME]`", aliases, (SearchAlias.__doc__ or "").strip()))


def _is_group(field: Any) -> bool:
    return isinstance(field.annotation, type) and issubclass(field.annotation, SettingsGroup)


def _table(title: str, rows: list[tuple[str, str, Any]], text: str = "") -> list[str]:
    lines = [f"## {title}", "", *([text, ""] if text else [])]
    lines += ["| setting | variable | default | meaning |", "|---|---|---|---|"]
    for variable, name, field in rows:
        default = "required" if field.is_required() else f"`{_shown(field.default)}`"
        meaning = (field.description or "").replace("|", "\\|")
        lines.append(f"| `{name}` | {f'`{variable}`' if variable else ''} | {default} | {meaning} |")
    return [*lines, ""]


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    if isinstance(default, tuple):
        return "[" + ", ".join(f'"{item}"' for item in default) + "]"
    return str(default).lower() if isinstance(default, bool) else str(default)
