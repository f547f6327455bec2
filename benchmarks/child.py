"""One measurement in one fresh process: `python -m benchmarks.child <job>`, in the virtual environment of what is measured.

The job is JSON: `scenario` (a module here with a function `run`), `peer`, `sink` and `control` (where the sink is), `tag` (of
the events' ids) and `params`, in which `{folder}` becomes a folder of the process's own. The last line of the output is the
result, as JSON.
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
    logging.disable(logging.CRITICAL)  # a library's complaints cost it time, and would cost it more on a terminal
    with tempfile.TemporaryDirectory() as folder:
        job: dict[str, Any] = json.loads(sys.argv[1].replace("{folder}", folder))
        scenario = import_module(f"benchmarks.{job['scenario']}")
        subject: Any = job["sink"]
        if job["peer"]:
            peer = PEERS[job["peer"]]
            options = json.loads(json.dumps(peer.options).replace("{folder}", folder))
            subject = peer.start(job["sink"], True, **{**options, **job["params"].get("options", {})})
        print(json.dumps(scenario.run(subject, Control(job["control"]), job["tag"], job["params"])))
    sys.stdout.flush()
    os._exit(0)  # threads of a library that do not end must not keep the run waiting


if __name__ == "__main__":
    main()
