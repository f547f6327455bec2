"""Start and stop: build the process's pipeline and attach it to OpenTelemetry."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry import trace
from opentelemetry._logs import get_logger_provider, set_logger_provider
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from . import config, running, survey, wiring
from .errors import ConfigurationError
from .pipeline import Pipeline
from .providers.base import Provider


def configure(
    providers: Sequence[Provider] | Mapping[str, Any] | None = None,
    *,
    logger_provider: LoggerProvider | None = None,
    tracer_provider: TracerProvider | None = None,
    **options: Any,
) -> Pipeline:
    """Start delivering conversions.

    Attaches to the LoggerProvider and TracerProvider that the app has, or makes SDK ones where it has none. OpenTelemetry lets
    nobody replace these, so an app that sets its own does that first.

    Args:
        providers: Provider objects, or a mapping of ids to settings; None takes all settings from the environment.
        logger_provider, tracer_provider: To attach to instead of the global ones.
        **options: `events`, `default_country`, `endpoint`, `timeout`, `sending_queue`, `retry_on_failure`, `visitor`,
            `consent`, `privacy`, `commit`, `environments`, ...; see `eventflows.config.settings`.

    Returns:
        The running pipeline.

    Raises:
        ConfigurationError: A setting is wrong, or a pipeline is running already.
    """
    with running.starting():
        if running.current() is not None:
            raise ConfigurationError("EventFlows is configured already; call eventflows.shutdown() first")
        if providers is None and not options:
            settings = config.from_environment()
        else:
            settings = config.settings(providers, **options)
            config.warn_of_variables(settings)
        resource = getattr(logger_provider or tracer_provider, "resource", None) or _resource()
        pipeline = running.shared(settings, resource.attributes)
        wiring.self_test(pipeline)
        logs = logger_provider or _logger_provider()
        if logs is not None:
            wiring.seal_logs(logs, pipeline)
        spans = tracer_provider or _tracer_provider()
        if spans is not None:
            wiring.follow_spans(spans, pipeline)
        survey.tell(pipeline, logs, spans)
        return pipeline


def _resource() -> Resource:
    """That of the providers which the app has, else what the SDK finds in the environment."""
    for existing in (get_logger_provider(), trace.get_tracer_provider()):
        if isinstance(resource := getattr(existing, "resource", None), Resource):
            return resource
    return Resource.create()


def _logger_provider() -> LoggerProvider | None:
    existing = get_logger_provider()
    if isinstance(existing, LoggerProvider):
        return existing
    made = LoggerProvider()
    set_logger_provider(made)
    return made if get_logger_provider() is made else None


def _tracer_provider() -> TracerProvider | None:
    existing = trace.get_tracer_provider()
    if isinstance(existing, TracerProvider):
        return existing
    made = TracerProvider()
    trace.set_tracer_provider(made)
    return made if trace.get_tracer_provider() is made else None


def force_flush(timeout_millis: float = 30_000) -> bool:
    """Deliver what is queued; True where every conversion had its outcome within the timeout."""
    pipeline = running.current()
    return pipeline is None or pipeline.force_flush(timeout_millis)


def shutdown(timeout_millis: float = 30_000) -> bool:
    """Deliver what is queued and stop; what is left at the timeout is counted as dropped.

    What is recorded later is still sealed for others, until the next `configure`, and dropped.

    Returns:
        True where every conversion had its outcome.
    """
    pipeline = running.current()
    return pipeline is None or pipeline.shutdown(timeout_millis)
