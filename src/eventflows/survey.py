"""What of OpenTelemetry is wired to the pipeline in this process, and telling it once, at start."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timezone
from typing import Literal
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider

from .config import Settings
from .diagnosis import Diagnosis, Wiring, diagnose
from .environments import name_in
from .log import logger
from .pipeline import Pipeline
from .processor import (
    EventFlowsLogRecordExporter,
    EventFlowsLogRecordProcessor,
    EventFlowsSpanExporter,
    EventFlowsSpanProcessor,
)
from .sdk import (
    exporters_of_logs,
    exporters_of_spans,
    has_log_processor,
    has_span_processor,
    log_length_limit,
    span_length_limit,
)

_LENGTH_VARIABLES = (
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
)
Way = Literal["", "processor", "simple", "batch"]
_instrumentor_is_on = False
_warned: WeakKeyDictionary[Pipeline, set[str]] = WeakKeyDictionary()
_told: WeakKeyDictionary[Pipeline, tuple[Settings, tuple[str, ...]]] = WeakKeyDictionary()
"""By which settings a pipeline went when its block was made, and the ways in that it told of."""


def instrumentor_is(on: bool) -> None:
    """Told by the instrumentor."""
    global _instrumentor_is_on
    _instrumentor_is_on = on


def wiring_of(logs: object, spans: object, *, instrumentor: bool) -> Wiring:
    """How these providers feed the pipeline."""
    log_way: Way = ""
    span_way: Way = ""
    sampler, limits = "", []
    if isinstance(logs, LoggerProvider):
        found = [
            batched
            for exporter, batched in exporters_of_logs(logs)
            if isinstance(exporter, EventFlowsLogRecordExporter)
        ]
        log_way = "processor" if has_log_processor(logs, EventFlowsLogRecordProcessor) else _way(found)
        limits.append(("the length limit of log attributes", log_length_limit(logs)))
    if isinstance(spans, TracerProvider):
        found = [
            batched for exporter, batched in exporters_of_spans(spans) if isinstance(exporter, EventFlowsSpanExporter)
        ]
        span_way = "processor" if has_span_processor(spans, EventFlowsSpanProcessor) else _way(found)
        sampler = spans.sampler.get_description()
        limits.append(("the length limit of span attributes", span_length_limit(spans)))
    known = tuple((name, length) for name, length in limits if length is not None)
    return Wiring(True, log_way, span_way, instrumentor, sampler, known)


def _way(batched: list[bool]) -> Way:
    return "" if not batched else "batch" if all(batched) else "simple"


def wiring_of_environment() -> Wiring:
    """What the environment says of an app that is not this process."""
    limits = ((name, os.environ.get(name, "").strip()) for name in _LENGTH_VARIABLES)
    return Wiring(known=False, length_limits=tuple((name, int(text)) for name, text in limits if text.isdigit()))


def diagnosis_of(pipeline: Pipeline, logs: object = None, spans: object = None) -> Diagnosis:
    """The diagnosis of a pipeline, as it is wired in this process now.

    Args:
        logs, spans: OpenTelemetry's providers, where they are not the global ones.
    """
    logs, spans = logs or get_logger_provider(), spans or trace.get_tracer_provider()
    resource = getattr(logs, "resource", None) or getattr(spans, "resource", None)
    environment = pipeline.settings.environment or name_in(getattr(resource, "attributes", {}))
    wiring = wiring_of(logs, spans, instrumentor=_instrumentor_is_on)
    return diagnose(pipeline.settings, pipeline.mode, environment, wiring, datetime.now(timezone.utc).date())


def tell(pipeline: Pipeline, logs: object = None, spans: object = None) -> None:
    """Log the diagnosis as one block, and what is to be mended as warnings, each of them once.

    Where nobody would read it yet, as before the app has set up its logging, the block comes with the first conversion. Once it
    was told, only a way in that is new is, until the settings change.
    """
    found = diagnosis_of(pipeline, logs, spans)
    settings, ways_in = _told.get(pipeline, (None, ()))
    _told[pipeline] = pipeline.settings, found.ways_in
    if pipeline.settings is settings and pipeline.at_first is None:
        for way in found.ways_in:
            if way not in ways_in:
                logger.info("EventFlows takes conversions from %s", way)
    elif logger.isEnabledFor(logging.INFO):
        logger.info("\n".join(found.lines(warnings=False)))
        pipeline.at_first = None
    else:
        pipeline.at_first = lambda: logger.info("\n".join(found.lines(warnings=False)))
    told = _warned.setdefault(pipeline, set())
    for finding in found.findings:
        if finding.level == "warning" and finding.text not in told:
            told.add(finding.text)
            logger.warning("%s", finding.text)
