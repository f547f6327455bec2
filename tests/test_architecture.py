"""Who may import whom, what is public, and what a mere import costs."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from importlib.metadata import entry_points, requires
from pathlib import Path

import pytest

import eventflows
from eventflows.providers import BUILT_IN, provider_class
from eventflows.semconv import STANDARD_EVENTS, event_key
from tests.conftest import ROOT

SOURCE = ROOT / "src" / "eventflows"

# From the ground up: a module may import only from the layers below its own.
LAYERS = [
    {
        "errors",
        "conversion",
        "country",
        "names",
        "log",
        "environment_variables",
        "patching",
        "pools",
        "payload",
        "answer",
    },
    {"told"},
    {
        "lifecycle",
        "phone",
        "semconv",
        "environments",
        "proxies",
        "checks",
        "stats",
        "secret",
        "hangup",
        "conditions",
        "substitution",
    },
    {"pii"},
    {"values", "consent", "retry", "kinds", "lookup", "config_file", "lifespan"},
    {"cookies", "items", "persons", "consent_settings", "delivery_settings", "selection"},
    {"sealing"},
    {"provider_settings", "stored"},
    {"spool"},
    {"capture", "commit", "providers.base", "request"},
    {"providers.ga4_identity", "providers.ga4_validation", "spans", "others"},
    {"providers", *(f"providers.{name}" for name in BUILT_IN), "visitor"},
    {"routing", "transport", "context", "pace", "provider_list"},
    {"model"},
    {"variables", "config_schema"},
    {"measured", "sdk", "baggage", "frameworks", "journal"},
    {"mapping", "intake", "holding", "metrics"},
    {"delivery", "writing"},
    {"telemetry"},
    {"backlog", "outbox", "outcomes", "reader", "storage", "direct"},
    {"lane", "credentials", "journals"},
    {"lanes", "offering"},
    {"config"},
    {"pipeline"},
    {"running"},
    {"processor", "dryrun", "facade", "diagnosis"},
    {"wiring", "survey"},
    {"instrumentation", "startup"},
    {"history"},
    {"cli.output", "cli.sandbox", "cli.given", "cli.parallel"},
    {"cli.check", "cli.configuration", "cli.events", "cli.storage"},
    {"cli"},
    {"cli.__main__"},
]
LEVEL = {module: level for level, layer in enumerate(LAYERS) for module in layer}
PROVIDERS_MAY_IMPORT = set(
    "conversion errors pii country secret semconv providers.base providers.ga4_identity providers.ga4_validation".split()
)


def modules() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts).removesuffix(".__init__")
        if name != "__init__" and not name.startswith("sandbox"):
            found[name] = path
    return found


def imported(name: str, path: Path) -> set[str]:
    """Our own modules that this one imports, at the top or inside functions."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = package.split(".") if package else []
            base = base[: len(base) - node.level + 1] if node.level > 1 else base
            target = ".".join([*base, *([node.module] if node.module else [])])
            if node.module:
                found.add(target)
            else:
                found.update(".".join(filter(None, [target, alias.name])) for alias in node.names)
    return found


@pytest.mark.parametrize("name", sorted(modules()))
def test_imports_go_one_way(name: str) -> None:
    assert name in LEVEL, "a new module needs its place in LAYERS and in docs/architecture.md"
    for target in imported(name, modules()[name]):
        if not target.startswith("sandbox"):
            assert LEVEL[target] < LEVEL[name], f"{name} must not import {target}"


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_a_provider_is_constants_and_pure_functions(name: str) -> None:
    """It reaches no network, clock, environment or OpenTelemetry."""
    path = SOURCE / "providers" / f"{name}.py"
    assert imported(f"providers.{name}", path) <= PROVIDERS_MAY_IMPORT
    text = path.read_text(encoding="utf-8")
    assert not re.search(
        r"^\s*(import|from) (opentelemetry|requests|os|time|socket|random|secrets)\b", text, re.MULTILINE
    )
    assert "datetime.now" not in text


def test_the_sandbox_shares_no_code_with_what_it_checks() -> None:
    for path in (SOURCE / "sandbox").glob("*.py"):
        assert not re.search(r"from \.\.|from eventflows(?!\.sandbox)", path.read_text(encoding="utf-8")), path.name


def test_private_sdk_names_stand_in_sdk_only() -> None:
    private = re.compile(r"opentelemetry(?:\.\w+)*\._(?!logs\b)\w+")
    for name, path in modules().items():
        if name != "sdk":
            assert not private.search(path.read_text(encoding="utf-8")), name


def test_the_public_names() -> None:
    expected = {
        "ConfigurationError", "ConsoleProvider", "EventFlowsInstrumentor", "EventFlowsLogRecordExporter",
        "EventFlowsLogRecordProcessor", "EventFlowsSpanExporter", "EventFlowsSpanProcessor", "EventType", "GA4Provider",
        "MetaProvider", "RedditProvider", "Rendered", "TikTokProvider", "configure", "force_flush", "get_tracer", "render",
        "shutdown", "tracker", "visitor_context", "visitor_snapshot", "visitor_update",
    }  # fmt: skip
    assert expected == set(eventflows.__all__) == set(dir(eventflows))
    assert all(getattr(eventflows, name) is not None for name in expected)
    with pytest.raises(AttributeError):
        _ = eventflows.nonsense  # type: ignore[attr-defined]


def test_a_public_name_is_never_shadowed_by_a_module() -> None:
    """Importing a module puts it into the package's namespace, in the place of a function of its name."""
    assert not {path.stem for path in SOURCE.glob("*.py")} & set(eventflows.__all__)


def test_the_four_required_dependencies() -> None:
    required = {
        re.split(r"[<>=; ]", line)[0]
        for line in requires("opentelemetry-exporter-eventflows") or ()
        if "extra" not in line
    }
    assert {"opentelemetry-api", "opentelemetry-sdk", "requests", "wrapt"} == required


@pytest.mark.parametrize(
    "group",
    ["opentelemetry_logs_exporter", "opentelemetry_traces_exporter", "opentelemetry_instrumentor", "pytest11",
     "opentelemetry_environment_variables"],
)  # fmt: skip
def test_the_entry_points_load(group: str) -> None:
    (entry,) = entry_points(group=group, name="eventflows")
    assert entry.load() is not None


def test_importing_the_package_loads_nothing_heavy() -> None:
    """Providers, SQLite, the command line, the sandbox, requests and the SDK come on first use."""
    ours = "('eventflows', 'requests', 'opentelemetry', 'wrapt', 'sqlite3')"
    code = f"import sys, eventflows; print(*sorted(m for m in sys.modules if m.startswith({ours})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "eventflows"


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_every_provider_has_its_three_files_and_its_names_are_recognised(name: str) -> None:
    assert (ROOT / "docs" / "providers" / f"{name}.md").is_file()
    assert (ROOT / "tests" / "providers" / f"test_{name}.py").is_file()
    provider = provider_class(name)
    names = {*provider.EVENT_NAMES.values(), *getattr(provider, "STANDARD_EVENTS", ())}
    unknown = {standard for standard in names if event_key(standard) not in STANDARD_EVENTS}
    assert set() == unknown


def test_files_stay_readable() -> None:
    assert {
        str(path.relative_to(ROOT)): lines
        for path in SOURCE.rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > 420
    } == {}


def test_ci_runs_the_commands_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for mark in ("main-command", "test-command"):
        assert re.search(rf"<!-- {mark} -->\n+```sh\n[^\n]+\n```", readme), mark
        assert f"readme_command {mark}" in (ROOT / ".ci" / "run").read_text(encoding="utf-8")
