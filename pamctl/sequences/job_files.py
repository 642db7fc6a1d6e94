"""A sequence as jobs of a cluster: one file a unit, and a script that submits them after those they need."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from pamctl.sequences.commands import Commands
from pamctl.sequences.folder import JOBS
from pamctl.sequences.grid import Unit
from pamctl.whole_output import whole_file

Cluster = Literal["slurm", "skypilot"]
SUBMIT, REPORT_JOB = "submit.sh", "report"
_SLURM = """\
#!/bin/bash
#SBATCH --job-name={name}
#SBATCH --signal=TERM@180 --requeue --open-mode=append
# {unit}
leave() {{ # 75: stopped, with a checkpoint saved
  if [ "$1" -eq 75 ]; then scontrol requeue "$SLURM_JOB_ID"; fi
  exit "$1"
}}
cd {out} || exit
{commands}
"""
_SLURM_SUBMIT = """\
#!/bin/bash
# Submits every job after those that it needs. What sbatch is to be told is given here, to all of them:
#   {place} --partition=gpu --gpus=1 --time=12:00:00
set -euo pipefail
cd {jobs}
submit() {{ local id; id=$(sbatch --parsable "$@"); echo "${{id%%;*}}"; }}
{lines}
"""
_SKYPILOT = """\
# {unit}
# {out}, the tasks and the base are to lie on a disk that every machine mounts: add volumes or file_mounts.
name: {name}
workdir: .
setup: pip install '.[cuda]'
run: |
  set -e
  cd {out}
{commands}
"""
_SKYPILOT_SUBMIT = """\
#!/bin/bash
# Launches every job after those that it needs, from a checkout of pamctl. What sky is to be told comes here:
#   {place} --gpus H100:1
# What several jobs need is waited for; the others run side by side. When all are done: {again}
set -euo pipefail
{lines}
"""


def write_jobs(
    out: Path, units: Sequence[Unit], commands: Commands, cluster: Cluster, again: Sequence[str]
) -> Path:
    """Write the jobs of all units into the folder of a run, and return the script that submits them.

    Args:
        again: the words of the `pamctl run` that, after all jobs, adds diagnostics and the report.
    """
    jobs = out.absolute() / JOBS
    ends = "sh" if cluster == "slurm" else "yaml"
    for unit in units:
        lines = [command for step in unit.steps if (command := commands.of(step))]
        _write(jobs / f"{_name(unit.name)}.{ends}", _job(unit.name, out, lines, cluster))
    place = shlex.quote(str(jobs / SUBMIT))
    if cluster == "slurm":
        _write(jobs / f"{REPORT_JOB}.sh", _job(REPORT_JOB, out, [shlex.join(again)], cluster))
        text = _SLURM_SUBMIT.format(
            place=place, jobs=shlex.quote(str(jobs)), lines="\n".join(_slurm_submissions(units))
        )
    else:
        text = _SKYPILOT_SUBMIT.format(
            place=place, again=shlex.join(again), lines="\n".join(_skypilot_launches(units, jobs))
        )
    _write(jobs / SUBMIT, text)
    (jobs / SUBMIT).chmod(0o755)
    return jobs / SUBMIT


def _job(unit: str, out: Path, lines: Sequence[str], cluster: Cluster) -> str:
    place, name = shlex.quote(str(out.absolute())), f"pamctl-{_name(unit)}"
    if cluster == "slurm":
        steps = [line.replace("pamctl ", "srun pamctl ", 1) + " || leave $?" for line in lines]
        return _SLURM.format(name=name, unit=unit, out=place, commands="\n".join(steps))
    indented = "\n".join(f"  {line}" for line in lines)
    return _SKYPILOT.format(name=json.dumps(_sky_name(unit)), unit=unit, out=place, commands=indented)


def _slurm_submissions(units: Sequence[Unit]) -> list[str]:
    variables = {unit.name: f"job_{number}" for number, unit in enumerate(units)}
    lines = []
    for unit in units:
        after = ":".join(f"${variables[name]}" for name in unit.needs)
        needs = f'--dependency="afterok:{after}" ' if after else ""
        lines.append(f'{variables[unit.name]}=$(submit {needs}"$@" {shlex.quote(_name(unit.name) + ".sh")})')
    every = ":".join(f"${variable}" for variable in variables.values())
    return [*lines, f'submit --dependency="afterany:{every}" "$@" {REPORT_JOB}.sh']


def _skypilot_launches(units: Sequence[Unit], jobs: Path) -> list[str]:
    needed = {name for unit in units for name in unit.needs}
    return [
        f'sky jobs launch -y {"" if unit.name in needed else "-d "}"$@" '
        f"{shlex.quote(str(jobs / f'{_name(unit.name)}.yaml'))}"
        for unit in units
    ]


def _name(unit: str) -> str:
    return unit.replace("/", "_")


def _sky_name(unit: str) -> str:
    """A name as SkyPilot has them: letters, digits and dashes."""
    return "pamctl-" + "".join(letter if letter.isalnum() else "-" for letter in unit).lower()


def _write(path: Path, text: str) -> None:
    with whole_file(path, force=True) as draft:
        draft.write_text(text, encoding="utf-8")
