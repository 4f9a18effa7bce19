"""The command ``serve``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from service.commands.common import ConfigOption, DataOption, JsonOption, load_settings, say


def serve(
    host: Annotated[str | None, typer.Option("--host", metavar="H", help="Address to listen on for DICOM.")] = None,
    http_host: Annotated[
        str | None,
        typer.Option("--http-host", metavar="H", help="Address to listen on for HTTP; but loopback it needs TLS."),
    ] = None,
    dicom_port: Annotated[
        int | None, typer.Option("--dicom-port", metavar="N", help="DICOM port; 0 takes any free one.")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option("--http-port", metavar="N", help="HTTP port; 0 takes any free one.")
    ] = None,
    json: JsonOption = False,
    data: DataOption = None,
    config: ConfigOption = None,
) -> None:
    """Receive studies by C-STORE and make discs, until SIGTERM or Ctrl-C."""
    overrides: dict[str, dict[str, Any]] = {"dicom": {}, "http": {}}
    if host is not None:
        overrides["dicom"]["host"] = host
    if http_host is not None:
        overrides["http"]["host"] = http_host
    if dicom_port is not None:
        overrides["dicom"]["port"] = dicom_port
    if http_port is not None:
        overrides["http"]["port"] = http_port
    settings = load_settings(config, data, overrides)

    from service.app import run_until_stopped
    from service.logs import configure

    configure(level=settings.log.level, style=settings.log.format)

    def ready(document: dict[str, Any]) -> None:
        if json:
            import json as json_module
            import sys

            sys.stdout.write(json_module.dumps(document) + "\n")
            sys.stdout.flush()
            return
        dicom = document["dicom"]
        say(f"DICOM: {dicom['ae_title']} at {dicom['host']} port {dicom['port']}; HTTP: {document['http']['url']}")
        if setup := document.get("setup"):
            say(f"There is no user yet. Make the first one at {setup['url']} with the one-time code {setup['code']}")
        say("Ctrl-C stops the service.")

    if not run_until_stopped(settings, ready):
        raise typer.Exit(1)
