"""What of OpenTelemetry is wired to the pipeline in this process, and telling it once, at start."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import datetime, timezone
from functools import partial
from typing import Literal
from weakref import WeakKeyDictionary

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.trace import TracerProvider

from .config import Settings
from .diagnosis import Diagnosis, Finding, Wiring, diagnose
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
    log_length_limit,
    log_processors,
    span_length_limit,
    span_processors,
)

_LENGTH_VARIABLES = (
    "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT",
    "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
)
Way = Literal["", "processor", "simple", "batch"]
_warned: WeakKeyDictionary[Pipeline, set[str]] = WeakKeyDictionary()
_told: WeakKeyDictionary[Pipeline, tuple[Settings, tuple[str, ...]]] = WeakKeyDictionary()
"""By which settings a pipeline went when its block was made, and the ways in that it told of."""


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
        log_way = "processor" if log_processors(logs, EventFlowsLogRecordProcessor) else _way(found)
        limits.append(("the length limit of log attributes", log_length_limit(logs)))
    if isinstance(spans, TracerProvider):
        found = [
            batched for exporter, batched in exporters_of_spans(spans) if isinstance(exporter, EventFlowsSpanExporter)
        ]
        span_way = "processor" if span_processors(spans, EventFlowsSpanProcessor) else _way(found)
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
    wiring = wiring_of(logs, spans, instrumentor=EventFlowsSpanProcessor.events_are_caught)
    return diagnose(pipeline.settings, pipeline.mode, environment, wiring, datetime.now(timezone.utc).date())


def tell(pipeline: Pipeline, logs: object = None, spans: object = None) -> None:
    """Log the diagnosis as one block, and what is to be mended as warnings, each of them once.

    The first conversion brings what cannot be said yet: the block, where the app has not set up its logging, and what the
    instrumentor mends, which may be switched on in the next line. Once the block was told, only a way in that is new is, until
    the settings change.
    """
    found = diagnosis_of(pipeline, logs, spans)
    settings, ways_in = _told.get(pipeline, (None, ()))
    if pipeline.settings is settings:
        for way in found.ways_in:
            if way not in ways_in:
                logger.info("EventFlows takes conversions from %s", way)
        _told[pipeline] = settings, found.ways_in
    elif logger.isEnabledFor(logging.INFO):
        _tell_block(pipeline, found)
    _warn(pipeline, [one for one in found.findings if not one.may_pass])
    pipeline.at_first = partial(_tell_the_rest, pipeline, logs, spans)


def _tell_the_rest(pipeline: Pipeline, logs: object, spans: object) -> None:
    found = diagnosis_of(pipeline, logs, spans)
    if _told.get(pipeline, (None,))[0] is not pipeline.settings:
        _tell_block(pipeline, found)
    _warn(pipeline, found.findings)


def _tell_block(pipeline: Pipeline, found: Diagnosis) -> None:
    logger.info("\n".join(found.lines(warnings=False)))
    _told[pipeline] = pipeline.settings, found.ways_in


def _warn(pipeline: Pipeline, findings: Iterable[Finding]) -> None:
    told = _warned.setdefault(pipeline, set())
    for finding in findings:
        if finding.level == "warning" and finding.text not in told:
            told.add(finding.text)
            logger.warning("%s", finding.text)
