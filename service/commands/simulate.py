"""The command ``simulate``: a robot that exists as a program only, to try a set-up without owning one."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from service.commands.common import ConfigOption, DataOption, JsonOption, plain, print_json, say
from service.errors import UsageError

if TYPE_CHECKING:
    from burners.simulated.base import Simulator


def simulate(
    driver: Annotated[str, typer.Argument(metavar="DRIVER", help="The robot's driver, e.g. epson.")],
    folder: Annotated[
        Path, typer.Option("--folder", metavar="F", help="The robot's hot folder, as in the settings.", file_okay=False)
    ],
    out: Annotated[
        Path, typer.Option("--out", metavar="DISCS", help="Where the discs come out, as images.", file_okay=False)
    ],
    robot_path: Annotated[
        str, typer.Option("--robot-path", metavar="P", help="The robot's own name of F; as robot_path in the settings.")
    ] = "",
    fault: Annotated[
        list[str] | None,
        typer.Option("--fault", metavar="X", help="A fault for each order, or X:0.2 for a fifth of them; repeatable."),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Of the dice that choose the orders.")] = 0,
    speed: Annotated[
        float, typer.Option("--speed", metavar="X", help="How many times faster than a real robot.", min=0.01)
    ] = 1.0,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Be a disc robot, until SIGTERM or Ctrl-C: take orders from its hot folder and "burn" images into a folder."""
    del data, config  # taken because every command takes them
    from burners.simulated.base import FAULTS, simulators

    installed = simulators()
    if driver not in installed:
        raise UsageError(f"there is no simulator of {driver!r}; there are {', '.join(sorted(installed))}")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())

    def tell(line: str) -> None:
        typer.echo(plain(line), err=json)

    make: type[Simulator] = installed[driver].load()
    try:
        robot = make(folder, out, robot_path=robot_path, faults=tuple(fault or ()), seed=seed, speed=speed, tell=tell)
    except ValueError as error:
        words = {**FAULTS, **make.own_faults}
        known = "".join(f"\n  {name}: {words[name]}" for name in make.faults)
        raise UsageError(f"{error}{known}") from error
    if json:
        print_json({"event": "ready", "driver": driver, "folder": str(folder), "out": str(out)})
    else:
        say(f"simulated {driver}: orders from {folder}, discs to {out}; Ctrl-C switches it off")
    robot.run(stop)
