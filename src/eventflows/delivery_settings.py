"""How a provider is sent to: its queue, its retries, its connections. The same settings hold for all, or for one provider."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from .checks import wrong
from .kinds import Boolean, Duration, FilePath, Number, Part, SecretText, Section
from .pools import TransportSettings, tls_context
from .retry import RetryPolicy
from .secret import Secret


@dataclass(frozen=True, slots=True)
class QueueSettings:
    """Names follow the Collector's `sending_queue`.

    Attributes:
        queue_size: How many conversions a lane holds in memory. Beyond it they are in the storage only; without storage
            the newest are dropped, with a count.
        flush_interval: Until a batch that is not full is sent.
        num_consumers: How many requests a lane has under way at most.
        storage: The folder of the journals; without one everything is in memory.
        retention: How long dead letters and the history are kept in the storage.
    """

    queue_size: int = 10_000
    flush_interval: float = 0.2
    num_consumers: int = 32
    storage: str | None = None
    retention: float = 30 * 86_400.0


@dataclass(frozen=True, slots=True)
class TlsSettings:
    """Names follow the Collector's `tls`.

    Attributes:
        ca_file: The authorities to trust instead of the usual ones: a PEM file, or a folder of them.
        cert_file: Our own certificate in PEM, for servers that ask for one.
        key_file: The private key of `cert_file`, where that does not hold it as well.
        insecure_skip_verify: Trust any certificate. For tests only: credentials go to whoever answers.
    """

    ca_file: str | None = None
    cert_file: str | None = None
    key_file: str | None = None
    insecure_skip_verify: bool = False


def transport_settings(timeout: float, tls: TlsSettings, proxy_url: Secret | None) -> TransportSettings:
    """The same as a transport takes it."""
    cert = (tls.cert_file, tls.key_file) if tls.cert_file and tls.key_file else tls.cert_file
    proxy = proxy_url.reveal() if proxy_url is not None else None
    return TransportSettings(timeout, proxy, tls.ca_file, cert, verify=not tls.insecure_skip_verify)


@dataclass(frozen=True)
class ProxyUrl(SecretText):
    """The URL of a proxy, which may hold a password."""

    def read(self, path: str, value: Any) -> Secret:
        secret = super().read(path, value)
        scheme = re.match(r"(https?|socks5h?)://[^\s/]", secret.reveal()) if secret.problem() is None else None
        if scheme is None:
            raise wrong(path, "must be a URL such as http://proxy:3128 (or https, socks5, socks5h)")
        if scheme[1].startswith("socks") and find_spec("socks") is None:
            raise wrong(path, 'a SOCKS proxy needs PySocks: pip install "requests[socks]"')
        return secret

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "pattern": r"^(https?|socks5h?)://|\$\{"}


def retry_contradictions(policy: RetryPolicy, given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What contradicts itself, as `(key, message)`; a default gives way."""
    if "max_interval" in given and policy.max_interval < policy.initial_interval:
        yield "max_interval", "must not be shorter than initial_interval"


def _tls_contradictions(tls: TlsSettings, _given: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if tls.insecure_skip_verify and tls.ca_file is not None:
        yield "insecure_skip_verify", "contradicts ca_file: either trust those authorities, or anybody"
    if tls.key_file is not None and tls.cert_file is None:
        yield "cert_file", "required with key_file"
    given = [key for key in ("ca_file", "cert_file", "key_file") if getattr(tls, key) is not None]
    missing = [key for key in given if not os.path.exists(getattr(tls, key))]
    for key in missing:
        yield key, f"there is no file {getattr(tls, key)}"
    if not missing and (tls.key_file is None or tls.cert_file is not None):
        cert = (tls.cert_file, tls.key_file) if tls.cert_file and tls.key_file else tls.cert_file
        for key, verify, shown in (("ca_file", tls.ca_file, None), ("cert_file", None, cert)):
            try:
                tls_context(verify or False, shown)
            except (OSError, ValueError) as problem:
                yield key, f"cannot be used: {getattr(problem, 'reason', None) or type(problem).__name__}"


QUEUE = Section(
    QueueSettings,
    {
        "queue_size": Number(1, whole=True),
        "flush_interval": Duration(),
        "num_consumers": Number(1, whole=True),
        "storage": FilePath(),
        "retention": Duration(),
    },
)
QUEUE_OF_ONE = Part(QUEUE, ("queue_size", "flush_interval", "num_consumers"))
RETRY = Section(
    RetryPolicy,
    {
        "initial_interval": Duration(),
        "max_interval": Duration(),
        "multiplier": Number(1, 100),
        "max_elapsed_time": Duration(zero=True),
    },
    retry_contradictions,
)
RETRY_OF_ONE = Part(RETRY, tuple(RETRY.settings))
TLS = Section(
    TlsSettings,
    {"ca_file": FilePath(), "cert_file": FilePath(), "key_file": FilePath(), "insecure_skip_verify": Boolean()},
    _tls_contradictions,
)
