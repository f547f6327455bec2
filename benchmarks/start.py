"""What importing and starting costs, in milliseconds, each in a fresh interpreter."""

from __future__ import annotations

import json
import subprocess
from dataclasses import dataclass

from . import environments
from .figures import Samples
from .measure import child_environment
from .sink import ROOT

CODE = """
import json, sys, threading, time
{before}
began, known = time.perf_counter(), set(sys.modules)
{what}
took = (time.perf_counter() - began) * 1000
print(json.dumps({{"ms": took, "modules": len(set(sys.modules) - known), "threads": threading.active_count() - 1}}))
sys.stdout.flush()
import os
os._exit(0)
"""
SDK = "import opentelemetry.sdk.trace, opentelemetry.sdk._logs, requests"
CONFIGURE = """
import eventflows
eventflows.configure([eventflows.MetaProvider("1234567890", "a", endpoint="http://127.0.0.1:9/meta")])
"""
RECORD = (
    CONFIGURE + 'eventflows.get_tracer("shop").add_event("purchase", {"order_id": "1", "user.email": "a@example.com"})'
)


@dataclass(frozen=True, slots=True)
class Start:
    """`before` is not counted."""

    environment: str
    what: str
    before: str = ""


STARTS = {
    "opentelemetry.sdk and requests": Start("eventflows", SDK),
    "import eventflows, beyond these": Start("eventflows", "import eventflows", SDK),
    "import and configure, beyond these": Start("eventflows", CONFIGURE, SDK),
    "import, configure and first event, beyond these": Start("eventflows", RECORD, SDK),
    "original eventflows 0.1.1": Start("original", "import eventflows"),
    "posthog": Start("posthog", "import posthog"),
    "segment-analytics-python": Start("segment", "import segment.analytics"),
    "rudder-sdk-python": Start("rudder", "import rudderstack.analytics"),
    "snowplow-tracker": Start("snowplow", "import snowplow_tracker"),
    "mixpanel": Start("mixpanel", "import mixpanel"),
    "amplitude-analytics": Start("amplitude", "import amplitude"),
    "facebook-business": Start("facebook", "import facebook_business.adobjects.serverside.event_request"),
}


def measure(repeats: int) -> Samples:
    """Each of `STARTS` once per round, after one that fills the caches of the disk."""
    samples: Samples = {name: [] for name in STARTS}
    for repeat in range(repeats + 1):
        for name, start in STARTS.items():
            command = [
                str(environments.python(start.environment)),
                "-c",
                CODE.format(before=start.before, what=start.what),
            ]
            done = subprocess.run(command, cwd=ROOT, env=child_environment(), capture_output=True, text=True)
            if repeat:
                found = json.loads(done.stdout) if done.returncode == 0 else {"error": done.stderr[-200:]}
                samples[name].append(found)
    return samples
