"""`counterfoil doctor`."""

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from counterfoil_cli import settings
from counterfoil_cli.commands.options import data_option, port_offset_option
from counterfoil_cli.doctor import bundle, places, processes, programs
from counterfoil_cli.doctor.findings import Finding, Outcome, Patient
from counterfoil_cli.env import environment

_COLORS = {Outcome.OK: "green", Outcome.WARN: "yellow", Outcome.FAIL: "red"}


@click.command()
@data_option
@port_offset_option
@click.option(
    "--bundle",
    "archive",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE.zip",
    help="Write a support bundle: settings, health, metrics, logs and counts, without records, keys and personal data.",
)
def doctor(data: Path, port_offset: int, archive: Path | None) -> None:
    """Look at everything an installation needs, and say what to do.

    Exit code 0: all is well, or there are warnings only; 1: something does not work.
    """
    patient = examined(data.absolute(), port_offset=port_offset)
    findings = []
    for finding in look(patient):
        findings.append(finding)
        click.echo(
            f"{click.style(f'{finding.outcome:<4}', fg=_COLORS[finding.outcome])}  {finding.name}: {finding.told}"
        )
        if finding.remedy:
            click.echo(f"      -> {finding.remedy}")
    if archive is not None:
        try:
            parts = bundle.write(archive, patient, findings)
        except OSError as error:
            raise click.ClickException(f"{archive} cannot be written: {error.strerror}") from error
        click.echo(f"{archive} holds {len(parts)} files; look into it before you hand it on.")
    sys.exit(any(finding.outcome is Outcome.FAIL for finding in findings))


def examined(data: Path, *, port_offset: int) -> Patient:
    """Return the installation in a folder, and what its processes say of themselves."""
    user = settings.inherited()
    made = environment(user, data=data, port_offset=port_offset, traces=True, admin_key_sha256="")
    variables = user | made
    return Patient(data=data, user=user, variables=variables, answers=processes.answers(variables))


def look(patient: Patient) -> Iterator[Finding]:
    """Look at one thing after the other."""
    yield from programs.python()
    yield from programs.packages()
    yield from programs.settings(patient)
    yield from places.folder(patient)
    yield from places.keys(patient)
    yield from places.databases(patient)
    yield from places.certificates(patient)
    yield from places.ports(patient)
    yield from processes.processes(patient)
    yield from processes.clocks(patient)
    yield from processes.traces(patient)
