"""Several processes that work on the units of one run, each with a base of its own."""

import multiprocessing
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from typing import Any

from pamctl.refusal import Preempted, Refusal
from pamctl.sequences.grid import Unit
from pamctl.sequences.scheduling import Failures, lacking
from pamctl.sequences.setup import Setup
from pamctl.sequences.worker import Worker
from pamctl.training.stop_request import StopRequest

SECONDS_TO_LEAVE = 10
_SECONDS_BETWEEN_LOOKS = 0.2


@dataclass
class _Hand:
    """A process, and the unit that it works on."""

    process: SpawnProcess
    line: Connection
    unit: Unit | None = None


class Processes:
    """Up to so many processes working through units.

    Args:
        on_work: told the unit's name, how much of it is done, and what is going on.
        report: told each score of interest.
        warn: told what to know before trusting a result.
        on_failure: told each unit that cannot be done, and why.
    """

    def __init__(
        self,
        setup: Setup,
        jobs: int,
        stop: StopRequest,
        on_work: Callable[[str, int, str], None],
        report: Callable[[str], None],
        warn: Callable[[str], None],
        on_failure: Callable[[Unit, Refusal], None],
    ) -> None:
        self._setup, self._jobs, self._stop = setup, jobs, stop
        self._on_work, self._report, self._warn, self._on_failure = on_work, report, warn, on_failure
        self._hands: list[_Hand] = []
        self._failures: Failures = {}
        self._done: set[str] = set()
        self._preempted: Preempted | None = None

    def work_through(self, units: Sequence[Unit]) -> Failures:
        """Do units, each after those that it needs.

        Raises:
            Preempted: stopped by SIGTERM, which every process was told.
        """
        waiting, told = list(units), False
        try:
            while waiting or self._busy():
                if self._stop.requested:
                    waiting = []
                    if not told:
                        self._tell_all_to_stop()
                    told = True
                self._hand_out(waiting)
                self._listen()
        finally:
            self._dismiss()
        if self._stop.requested or self._preempted:
            raise self._preempted or Preempted("stopped between two steps", "run again to go on")
        return self._failures

    def _busy(self) -> list[_Hand]:
        return [hand for hand in self._hands if hand.unit is not None]

    def _hand_out(self, waiting: list[Unit]) -> None:
        """Give every free process a unit whose needs are met, and refuse those that cannot be."""
        for unit in list(waiting):
            if (refusal := lacking(unit, self._failures)) is not None:
                waiting.remove(unit)
                self._fail(unit, refusal)
            elif self._done.issuperset(unit.needs) and (hand := self._free()) is not None:
                waiting.remove(unit)
                hand.unit = unit
                hand.line.send(unit)

    def _free(self) -> _Hand | None:
        for hand in self._hands:
            if hand.unit is None:
                return hand
        if len(self._hands) == self._jobs:
            return None
        spawn = multiprocessing.get_context("spawn")
        line, theirs = spawn.Pipe()
        process = spawn.Process(target=_serve, args=(self._setup, theirs), daemon=True)
        process.start()
        theirs.close()
        self._hands.append(_Hand(process, line))
        return self._hands[-1]

    def _listen(self) -> None:
        busy = list(self._busy())
        ready = wait([hand.line for hand in busy], _SECONDS_BETWEEN_LOOKS)
        for hand in [hand for hand in busy if hand.line in ready]:
            try:
                kind, told = hand.line.recv()
            except (EOFError, OSError):
                self._lost(hand)
            else:
                self._heard(hand, kind, told)

    def _heard(self, hand: _Hand, kind: str, told: Any) -> None:
        assert hand.unit is not None
        unit = hand.unit
        if kind == "work":
            self._on_work(*told)
        elif kind == "score":
            self._report(told)
        elif kind == "warning":
            self._warn(told)
        else:
            hand.unit = None
            if kind == "done":
                self._done.add(unit.name)
            elif kind == "preempted":
                self._preempted = Preempted(*told)
                # Told by somebody else than this process: the others are to stop as well.
                self._stop.requested = True
            else:
                self._fail(unit, Refusal(*told))

    def _lost(self, hand: _Hand) -> None:
        self._hands.remove(hand)
        hand.process.join()
        if hand.unit is not None:
            code = hand.process.exitcode
            self._fail(hand.unit, Refusal(f"its process ended with code {code}", "run again to go on"))

    def _fail(self, unit: Unit, refusal: Refusal) -> None:
        self._failures[unit.name] = refusal
        self._on_failure(unit, refusal)

    def _tell_all_to_stop(self) -> None:
        for hand in self._busy():
            hand.process.terminate()

    def _dismiss(self) -> None:
        for hand in self._hands:
            with suppress(OSError):
                hand.line.send(None)
            if hand.unit is not None:
                hand.process.terminate()
        for hand in self._hands:
            hand.process.join(SECONDS_TO_LEAVE)
            if hand.process.is_alive():
                hand.process.kill()
                hand.process.join()


def _serve(setup: Setup, line: Connection) -> None:
    """What a process does: units that it is sent, until it is sent none or nobody is there to send."""
    from pamctl.compile_cache import keep_compiled_programs

    # Ctrl-C reaches every process of a terminal; the one that was started by hand tells of it.
    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError), StopRequest() as stop:
        keep_compiled_programs()
        worker: Worker | None = None
        while (unit := line.recv()) is not None:
            try:
                worker = worker or _worker(setup, stop, line)
                worker.do(unit)
            except Preempted as stopped:
                line.send(("preempted", (stopped.what, stopped.way_on)))
            except Refusal as refusal:
                line.send(("failed", (refusal.what, refusal.way_on)))
            else:
                line.send(("done", None))
        sys.exit(0)


def _worker(setup: Setup, stop: StopRequest, line: Connection) -> Worker:
    return Worker(
        setup.out,
        setup.load_base(),
        setup.open_tasks(),
        stop,
        lambda *done: line.send(("work", done)),
        report=lambda message: line.send(("score", message)),
        warn=lambda message: line.send(("warning", message)),
    )
