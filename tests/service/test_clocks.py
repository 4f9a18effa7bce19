"""The clock's tasks go on whatever happens to the time of day."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from service.clocks import Clocks
from service.operations import StoreOperations
from tests.waiting import wait_for


def test_after_the_clock_was_set_back_tasks_go_on(opened: Callable[[], StoreOperations]) -> None:
    clocks = Clocks(opened().context, cast("Any", None))
    done = threading.Event()
    clocks._every("task", done.set, seconds=3600.0, first=3600.0)  # as one is left by a clock that was set back
    clocks._scheduler.start()
    try:
        assert not done.is_set()
        clocks.all_due()
        wait_for(done.is_set, "the task to run")
    finally:
        clocks.stop()
