from __future__ import annotations

import json
from typing import Any

from eventflows import payload
from eventflows.providers.base import Encoded, Provider


def body_of(provider: Provider, *encoded: Encoded) -> dict[str, Any]:
    """The body of the request with these events, as it goes over the wire."""
    request = provider.request(encoded)
    events = [payload.encode(one.event) for one in encoded]
    return dict(json.loads(payload.body(request.envelope, request.events_at, events)))
