"""The command line ``burnish``. A command imports what it needs when it runs, so that each starts fast."""

from __future__ import annotations

import gc
import os
import sys
from typing import Any

import typer
from typer.core import TyperGroup

from service.commands import (
    atrisk,
    audit,
    catalogue,
    change,
    devices,
    discs,
    holds,
    label,
    look,
    nodes,
    notices,
    pools,
    produce,
    profiles,
    recalls,
    receive,
    repair,
    schedules,
    security,
    serve,
    simulate,
    users,
    verify,
    watch,
)
from service.commands.common import plain, print_json
from service.errors import as_refusal


class _Commands(TyperGroup):
    """Turns every error into one clear line on stderr and the right exit status; users see no traceback.

    With ``--json`` what could not be done (exit status 1) is a document too: ``{"error": {"code", "detail"}}``.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta["burnish.json"] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from None
        except BrokenPipeError:
            # Whoever read our output has had enough (`burnish studies | head`).
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            if type(error).__module__.partition(".")[0] in ("click", "typer"):
                raise  # shown by typer, with the command's usage
            raise typer.Exit(_tell(error, json=ctx.meta["burnish.json"])) from None


def _tell(error: Exception, *, json: bool) -> int:
    refusal = as_refusal(error)
    if os.environ.get("BURNISH_DEBUG"):
        import traceback

        traceback.print_exception(error)
    if refusal is None:
        typer.echo(f"error: unexpected {type(error).__name__}: {error} (BURNISH_DEBUG=1 shows where)", err=True)
        return 1
    # What it quotes may come from a DICOM file, and hold what a terminal obeys.
    for number, line in enumerate(str(refusal).split("\n")):
        typer.echo(plain(line) if number else f"error: {plain(line)}", err=True)
    if json and refusal.exit_status == 1:
        print_json({"error": {"code": refusal.code, "detail": str(refusal)}})
    return refusal.exit_status


app = typer.Typer(
    cls=_Commands,
    name="burnish",
    help="DICOM studies come in by C-STORE, verified and catalogued discs go out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("serve")(serve.serve)
app.command("import")(receive.import_)
app.command("studies")(receive.studies)
app.command("plan")(produce.plan)
app.command("burn")(produce.burn)
app.command("check")(profiles.check)
app.command("profiles")(profiles.profiles)
app.command("job")(produce.job)
app.command("jobs")(produce.jobs)
app.command("cancel")(produce.cancel)
app.command("retry")(produce.retry)
app.command("update")(change.update)
app.command("purge")(receive.purge)
app.command("delete")(receive.delete)
app.command("verify")(verify.verify)
app.command("repair")(repair.repair)
app.command("find")(look.find)
app.add_typer(catalogue.catalogue, name="catalogue")
app.add_typer(discs.discs, name="discs")
app.command("at-risk")(atrisk.at_risk)
app.command("keep")(holds.keep)
app.command("reburn")(atrisk.reburn)
app.command("recall")(recalls.recall)
app.command("recalls")(recalls.recalls)
app.command("insert")(recalls.insert)
app.command("refuse")(recalls.refuse)
app.add_typer(pools.pool, name="pool")
app.add_typer(schedules.schedule, name="schedule")
app.add_typer(nodes.nodes, name="nodes")
app.add_typer(notices.notices, name="notices")
app.add_typer(watch.watch, name="watch")
app.command("pull")(nodes.pull)
app.command("send")(nodes.send)
app.command("label")(label.label)
app.command("passcode")(security.passcode)
app.add_typer(users.users, name="users")
app.add_typer(users.tokens, name="tokens")
app.command("burners")(devices.burners)
app.add_typer(audit.audit, name="audit")
app.command("doctor")(look.doctor)
app.command("conformance")(look.conformance)
app.command("simulate")(simulate.simulate)


def main() -> None:
    """The console script."""
    gc.set_threshold(10_000, 10, 10)  # what is imported stays: looking through it often is a tenth of a start's time
    app()
