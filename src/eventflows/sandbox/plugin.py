"""The pytest plugin: the fixture `eventflows_sandbox`, a sandbox that runs for one test.

pytest imports this module in every run, so it imports nothing but pytest until a test asks for the fixture.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .server import Sandbox


@pytest.fixture
def eventflows_sandbox() -> Iterator[Sandbox]:
    """A running stand-in for the ad platforms' APIs, empty at the start of the test."""
    from .server import Sandbox

    try:
        sandbox = Sandbox().start()
    except ImportError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield sandbox
    finally:
        sandbox.stop()
