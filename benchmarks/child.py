"""One measurement in one fresh process: `python -m benchmarks.child <job>`, in the virtual environment of what is measured.

The job is JSON: `scenario` (a module here with a function `run`), `peer`, `sink` and `control` (where the sink is), `tag` (of
the events' ids) and `params`. The last line of the output is the result, as JSON.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from importlib import import_module
from typing import Any

from .peers import PEERS
from .sink import Control


def main() -> None:
    job: dict[str, Any] = json.loads(sys.argv[1])
    logging.disable(logging.CRITICAL)  # a library's complaints cost it time, and would cost it more on a terminal
    scenario = import_module(f"benchmarks.{job['scenario']}")
    control = Control(job["control"])
    with tempfile.TemporaryDirectory() as folder:
        if not job["peer"]:
            found = scenario.run(job["sink"], control, job["tag"], job["params"])
        else:
            peer = PEERS[job["peer"]]
            options = json.loads(
                json.dumps({**peer.options, **job["params"].get("options", {})}).replace("{folder}", folder)
            )
            client = peer.start(job["sink"], True, **options)
            found = scenario.run(client, control, job["tag"], job["params"])
        print(json.dumps(found), flush=True)
    sys.stdout.flush()
    os._exit(0)  # threads of a library that do not end must not keep the run waiting


if __name__ == "__main__":
    main()
