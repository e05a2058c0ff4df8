"""`onnxprune doctor`: is this installation in order?"""

from __future__ import annotations

import click

from onnxprune.cli.base import JSON, VERBOSITY, examples, option_group, print_json


@click.command("doctor", epilog=examples("onnxprune doctor", "onnxprune doctor --json"))
@option_group(JSON, VERBOSITY)
@click.pass_context
def command(context: click.Context, as_json: bool, verbose: bool) -> None:  # noqa: ARG001 (the error handler reads it)
    """Look at versions, execution providers, extras and plug-ins, and prune a tiny model from file to file.

    What is missing or broken is printed with the command that repairs it. Ends with 1 where something is broken, with 0
    where only extras are missing.
    """
    from dataclasses import asdict

    from onnxprune.report.progress import progress as reporting

    with reporting() as progress:
        from onnxprune.cli import doctor
        from onnxprune.support.versions import versions

        progress("examining")
        checks = doctor.examine()
    healthy = all(check.state != doctor.BROKEN for check in checks)
    if as_json:
        from onnxprune.report.data import FORMAT

        print_json(
            {
                "format": FORMAT,
                "kind": "doctor",
                "ok": healthy,
                "versions": versions(),
                "checks": [asdict(check) for check in checks],
            }
        )
    else:
        doctor.show_findings(checks)
    if not healthy:
        context.exit(1)
