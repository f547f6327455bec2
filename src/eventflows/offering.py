"""Offering: a portion of what waited in the intake is read, and written for one lane after the other.

An event that cannot be read costs no other event, and a lane that fails costs no other lane.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from operator import attrgetter

from .capture import conversion_of
from .conversion import Conversion
from .intake import Arrival, Left
from .lane import Lane
from .log import logger
from .mapping import Entry, NotSent, Source, internal_error, source_of
from .reader import Reader

LanesOf = Callable[[str], Sequence[Lane]]
"""The names of providers, with commas between → their lanes."""


def offer(arrivals: Iterable[Arrival], reader: Reader, lanes_of: LanesOf) -> None:
    """Read events, and offer each to every lane that it is owed to."""
    for owed, some in groupby(arrivals, attrgetter("owed")):
        _offer(list(some), reader, lanes_of(owed))


def _offer(arrivals: list[Arrival], reader: Reader, lanes: Sequence[Lane]) -> None:
    """Read some events, and write them for one lane after the other.

    To change between reading and the lanes for each event takes a third more: the processor's caches then hold the code
    of none of them.
    """
    now = time.time_ns()
    offered = [(one.journal, one.seq) for one in arrivals if one.journal is not None]
    left = list(lanes)
    those: Sequence[Arrival | Source] = arrivals
    try:
        conversions, sources = _read(arrivals, reader, lanes)
        those = sources
        arrivals.clear()  # the more there is at once, the sooner the garbage collector goes over it
        for lane in lanes:
            written = _written(lane, conversions, sources, now)
            left.remove(lane)
            try:
                lane.offer(sources, written)
            except Exception as problem:  # noqa: BLE001 reason: one lane must not cost the others their events
                logger.error("%s: internal error (%s) in its queue", lane.provider.name, type(problem).__name__)
    except BaseException as problem:  # a signal handler's, on a thread that flushes
        for lane in left:
            for one in those:
                lane.turn_away(one.kind, one.journal, one.seq, internal_error(problem).reason)
        raise
    finally:
        for journal, seq in offered:
            journal.spool.offered(seq)


def _written(
    lane: Lane, conversions: Sequence[Conversion], sources: Sequence[Source], now: int
) -> Sequence[Entry | NotSent | None]:
    try:
        return lane.written(conversions, sources, now)
    except Exception as problem:  # noqa: BLE001 reason: they have an outcome all the same
        return [internal_error(problem)] * len(sources)


def _read(arrivals: Iterable[Arrival], reader: Reader, lanes: Sequence[Lane]) -> tuple[list[Conversion], list[Source]]:
    country = reader.settings.rules.default_country
    conversions: list[Conversion] = []
    sources: list[Source] = []
    for arrival in arrivals:
        event, journal, seq, _, _, _ = arrival
        try:
            conversion = conversion_of(event, country)
            source = source_of(conversion, journal, seq)
        except Exception as problem:  # noqa: BLE001 reason: one event must not cost the others of its batch
            _turn_away(arrival, lanes, internal_error(problem).reason)
            continue
        reader.leave_out(conversion.left_out)
        conversions.append(conversion)
        sources.append(source)
    return conversions, sources


def turn_away(arrivals: Iterable[Arrival | Left], lanes_of: LanesOf, reason: str) -> None:
    """Count events in for which there was no room, or no time, before they could be read."""
    for arrival in arrivals:
        _turn_away(arrival, lanes_of(arrival.owed), reason)
        if arrival.journal is not None:
            arrival.journal.spool.offered(arrival.seq)


def _turn_away(arrival: Arrival | Left, lanes: Sequence[Lane], reason: str) -> None:
    for lane in lanes:
        lane.turn_away(arrival.kind, arrival.journal, arrival.seq, reason)
