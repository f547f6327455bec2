"""What the documentation says about settings, made from the model: `python -m tests.config_docs` writes it, a test compares.

Tables stand in `docs/configuration.md` between `<!-- name -->` and `<!-- end -->`; the JSON Schema and the list of variables
for `opentelemetry-instrument` are whole files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from eventflows.config_schema import schema
from eventflows.consent_settings import RegimeOf, Regions
from eventflows.kinds import (
    Anything,
    Boolean,
    Choice,
    Duration,
    FilePath,
    Kind,
    Mapped,
    Number,
    Part,
    SecretText,
    Section,
    Share,
    Texts,
    Url,
    as_written,
    default_of,
    documented,
)  # fmt: skip
from eventflows.model import SETTINGS
from eventflows.provider_settings import SHARED, kinds_of, required
from eventflows.providers import BUILT_IN, provider_class
from eventflows.providers.base import Provider
from eventflows.selection import When
from eventflows.variables import CONFIG, variable

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = ROOT / "docs" / "eventflows.schema.json"
PAGE = ROOT / "docs" / "configuration.md"
VARIABLES = ROOT / "src" / "eventflows" / "environment_variables.py"


def what(kind: Kind) -> str:
    """What a value is, in a word or two."""
    words: list[tuple[type[Kind], str]] = [
        (When, "condition"), (SecretText, "secret"), (Url, "URL"), (FilePath, "path"), (Boolean, "true or false"),
        (Share, "number"), (Duration, "duration"), (Mapped, "mapping"),
        (Regions, "mapping"), (Anything, "mapping"), (Texts, "list"),
    ]  # fmt: skip
    if isinstance(kind, Choice):
        return " or ".join(f"`{one}`" for one in kind.allowed)
    if isinstance(kind, Number):
        return "whole number" if kind.whole else "number"
    if isinstance(kind, RegimeOf):
        return "`granted`, `denied` or mapping"
    return next(
        (word for one, word in words if isinstance(kind, one)),
        ("list or mapping" if kind.short else "mapping") if isinstance(kind, Section) else "text",
    )


def rows(owner: Any, path: str = "") -> Iterator[tuple[str, Kind, str, Any]]:
    """Path, kind, description and default of each setting below a section."""
    builds = owner.section.builds if isinstance(owner, Part) else getattr(owner, "builds", type(owner))
    about = documented(builds)
    defaults = {} if isinstance(owner, Part) else {one.name: default_of(one) for one in fields(builds)}
    for key, kind in owner.settings.items():
        at = f"{path}.{key}" if path else key
        if hasattr(kind, "settings"):
            yield from rows(kind, at)
        elif key != "providers":
            yield at, kind, about.get(key, ""), defaults.get(key)


def cell(kind: Kind, default: Any) -> str:
    return (
        f"`{json.dumps(as_written(kind, default))}`".replace('"', "")
        if isinstance(default, (str, bool, int, float))
        else ""
    )


def settings_table() -> str:
    lines = ["| setting | value | default | |", "|---|---|---|---|"]
    lines += [
        f"| `{path}` | {what(kind)} | {cell(kind, default)} | {about} |"
        for path, kind, about, default in rows(SETTINGS)
    ]
    return "\n".join(lines)


def shared_table() -> str:
    lines = ["| setting | value | |", "|---|---|---|"]
    about = documented(Provider)
    for key, kind in SHARED.items():
        if key != "tenant":
            lines.append(f"| `{key}` | {'mapping' if isinstance(kind, Part) else what(kind)} | {about[key]} |")
    return "\n".join(lines)


def own_table() -> str:
    lines = ["| provider | setting | value | default | |", "|---|---|---|---|---|"]
    for one in sorted(BUILT_IN):
        cls = provider_class(one)
        about, defaults, needed = documented(cls), {f.name: f.default for f in fields(cls)}, required(cls)
        for key, kind in kinds_of(cls).items():
            if key not in SHARED:
                default = "required" if key in needed else cell(kind, defaults[key])
                lines.append(f"| `{one}` | `{key}` | {what(kind)} | {default} | {about.get(key, '')} |")
    return "\n".join(lines)


def page() -> str:
    """The page, with its tables as they must be."""
    text = PAGE.read_text(encoding="utf-8")
    for name, table in (("settings", settings_table()), ("shared", shared_table()), ("own", own_table())):
        text = re.sub(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)", lambda m, t=table: f"{m[1]}{t}\n{m[2]}", text, flags=re.DOTALL
        )
    return text


def variables_file() -> str:
    """The module that `opentelemetry-instrument` makes its flags from."""
    names = [CONFIG, *(variable(path) for path, *_ in rows(SETTINGS))]
    for one in sorted(BUILT_IN):
        cls = provider_class(one)
        own = [key for key in kinds_of(cls) if key not in SHARED]
        names += [variable(f"{one}.{key}") for key in (own or ["enabled"])]
    lines = [
        '"""Names of the environment variables, for `opentelemetry-instrument`, which offers each as a command-line flag."""',
        "",
    ]
    for name in names:
        secret = "  # noqa: S105 reason: a name" if re.search("TOKEN|SECRET|PASSWORD", name) else ""
        lines.append(f'{name} = "{name}"{secret}')
    return "\n".join(lines) + "\n"


def schema_file() -> str:
    return json.dumps(schema(sorted(BUILT_IN)), indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    SCHEMA.write_text(schema_file(), encoding="utf-8")
    VARIABLES.write_text(variables_file(), encoding="utf-8")
