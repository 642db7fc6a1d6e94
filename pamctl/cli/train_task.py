"""`pamctl train-task`: train an adapter on one task."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pamctl.cli.base_options import held_options
from pamctl.cli.distributed_options import distributed_options, join_others
from pamctl.cli.push import push_option, pushed_to, say_where_it_would_be_pushed
from pamctl.training.methods import METHODS

if TYPE_CHECKING:
    from pamctl.cli.output import Progress
    from pamctl.training.plan import Plan


@click.command()
@click.argument("tasks", nargs=-1, required=True, metavar="TASK...")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder of the adapter.")
@click.option("--base", metavar="MODEL", help="Base model: a folder or hf://org/name. [default: embedded]")
@click.option(
    "--global", "global_adapter", metavar="ADAPTER", help="Adapter of the tasks before; none: a first task."
)
@click.option(
    "--previous",
    metavar="ADAPTER",
    help="What was trained for the task before, where merging made the --global adapter of it: "
    "magmax goes on from it, er+pam replays what lies beside it.",
)
@click.option(
    "--method",
    type=click.Choice(list(METHODS)),
    default="pam",
    show_default=True,
    help="Where to start, what to add and how to merge afterwards: a row of README's table.",
)
@click.option(
    "--term",
    "terms",
    multiple=True,
    metavar="NAME[:k=v,...]",
    help="Add a term to the loss, or set one of the method: lwf, l2, orth, consistency; repeatable.",
)
@click.option(
    "--align/--no-align", default=None, help="Put conflicting weights back. [default: the method's]"
)
@click.option(
    "--replay",
    metavar="SPEC",
    help="Train on kept examples too: on, off, or buffer=1000,batch=N,images=reference|copy, any of them.",
)
@click.option(
    "--ema", "decay", type=float, metavar="DECAY", help="Evaluate the moving average over steps; 0 for none."
)
@click.option(
    "--adapter",
    type=click.Choice(["single", "stack", "moe"]),
    help="LoRA, new LoRA on top of frozen one, or experts with a router. [default: the method's]",
)
@click.option("--experts", type=int, metavar="N", help="Experts that share the rank. [default: 8]")
@click.option(
    "--mixing",
    type=click.Choice(["proportional", "uniform", "square-root"]),
    default="proportional",
    show_default=True,
    help="How often each of several tasks is seen.",
)
@click.option(
    "--top-p", type=float, default=50, show_default=True, help="Percent of important global weights."
)
@click.option(
    "--align-every", type=float, metavar="N", help="Steps between realignments; below 1, a fraction of all."
)
@click.option("--align-at-end", is_flag=True, help="Realign after the last step too.")
@click.option(
    "--scope",
    type=click.Choice(["tensor", "module", "factor", "global"]),
    default="global",
    show_default=True,
    help="Which global weights are ranked together.",
)
@click.option(
    "--reinit",
    type=click.Choice(["global", "zero", "init"]),
    default="global",
    show_default=True,
    help="What a weight in conflict is put back to: the global one, 0, or its own at the start.",
)
@click.option(
    "--moments",
    type=click.Choice(["keep", "reset"]),
    default="keep",
    show_default=True,
    help="Adam's first moment where a weight is put back.",
)
@click.option(
    "--init",
    type=click.Choice(["global", "previous", "fresh"]),
    help="Start from the --global adapter (as global or as the one of the task before) or from fresh LoRA.",
)
@click.option("--rank", type=int, help="Rank of a first adapter.")
@click.option("--alpha", type=float, help="A first adapter's update is scaled by alpha / rank.")
@click.option("--targets", metavar="REGEX", help="Modules of a first adapter, matched in full.")
@click.option("--lr", "learning_rate", type=float, help="Peak of warm-up and cosine.")
@click.option("--batch-size", type=int, metavar="N", help="Examples a step.")
@click.option("--epochs", type=int, metavar="N", help="Passes over the training split.")
@click.option("--steps", type=int, metavar="N", help="Optimiser steps, instead of --epochs.")
@click.option("--weight-decay", type=float, help="Decoupled; follows the schedule, not the rate.")
@click.option("--label-smoothing", type=float, help="Probability spread over the other tokens.")
@click.option("--accumulate", type=int, default=1, metavar="N", help="Parts that a batch is worked on in.")
@click.option(
    "--remat",
    type=click.Choice(["none", "elementwise", "all"]),
    default="elementwise",
    show_default=True,
    help="What of each layer is computed again for the gradient: more saves memory.",
)
@held_options
@click.option("--checkpoint-every", type=int, default=100, show_default=True, metavar="STEPS")
@click.option(
    "--keep-checkpoints", "kept", type=int, default=2, show_default=True, metavar="K", help="The newest K."
)
@click.option("--tensorboard", type=click.Path(path_type=Path), metavar="DIR", help="Show the numbers there.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of fresh LoRA and the examples' order.")
@click.option(
    "--resume", is_flag=True, help="Go on from the newest checkpoint; leave a finished output alone."
)
@distributed_options
@push_option
@click.option("--force", is_flag=True, help="Replace an existing output and start over.")
@click.option("--dry-run", is_flag=True, help="Check every input, show the plan, write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def train_task(
    tasks: tuple[str, ...],
    output: Path,
    base: str | None,
    global_adapter: str | None,
    previous: str | None,
    checkpoint_every: int,
    kept: int,
    tensorboard: Path | None,
    resume: bool,
    push_to: str | None,
    force: bool,
    dry_run: bool,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train an adapter on TASK: an embedded task's name, a task folder or a .jsonl.

    Without --global it is the first task of a sequence. Several TASKs are learned at once, by multitask.
    Settings that are not given come from the task's recipe and the base, and are saved with the adapter.
    Checkpoints lie in OUTPUT.checkpoints while it runs; on SIGTERM one is saved and the exit code is 75.

    \b
    Examples:
      pamctl train-task tiny-scienceqa -o first
      pamctl train-task tiny-textvqa --global first -o second
      pamctl train-task tiny-textvqa --global first -o second --resume
      pamctl train-task tiny-textvqa --global first --method lwf --term lwf:weight=0.5 -o second
      pamctl train-task tiny-gqa tiny-textvqa --method multitask -o both
      pamctl train-task my-task.jsonl --global first --epochs 5 -o mine --dry-run
    """
    from pamctl.cli.output import print_json, print_result, say, warn
    from pamctl.compile_cache import keep_compiled_programs
    from pamctl.training import plan_task, train_task

    keep_compiled_programs()
    join_others(settings)
    inputs: dict[str, Any] = {
        "base": base,
        "global_adapter": global_adapter,
        "previous": previous,
        "checkpoint_every": checkpoint_every,
        "kept": kept,
        "resume": resume,
        "force": force,
    }
    if dry_run:
        plan = plan_task(tasks, output, **inputs, **settings)
        for note in plan.notes:
            warn(note)
        say_where_it_would_be_pushed(push_to)
        if as_json:
            print_json("train-task-plan", plan.to_json())
        else:
            say("\n".join(_lines(plan)))
        return
    with _Bar(f"Training {', '.join(tasks)}") as bar:
        written = train_task(
            tasks,
            output,
            on_step=bar.show,
            report=say,
            warn=warn,
            tensorboard=tensorboard,
            **inputs,
            **settings,
        )
    pushed = pushed_to(push_to, written)
    if as_json:
        print_json("train-task", {**_record(written), "pushed": pushed})
    else:
        print_result(written)


class _Bar:
    """The progress of a run whose length is known once it is under way."""

    def __init__(self, title: str) -> None:
        self._title = title
        self._bar: Progress | None = None

    def __enter__(self) -> "_Bar":
        return self

    def __exit__(self, *fault: object) -> None:
        if self._bar is not None:
            self._bar.__exit__(*fault)

    def show(self, progress: Any) -> None:
        from pamctl.cli.output import Progress

        if self._bar is None:
            self._bar = Progress(self._title, progress.steps).__enter__()
        self._bar.update(progress.step, _told(progress))


def _told(progress: Any) -> str:
    numbers = [
        f"loss {progress.loss:.4f}",
        f"lr {progress.learning_rate:.2e}",
        f"{progress.examples_per_second:.0f} examples/s",
        f"{progress.tokens_per_second:,.0f} tokens/s",
    ]
    if progress.mfu is not None:
        numbers.append(f"MFU {progress.mfu:.0f} %")
    if progress.conflicts is not None:
        numbers.append(f"{progress.conflicts:.2f} % put back")
    return ", ".join(numbers)


def _record(output: Path) -> dict[str, Any]:
    from pamctl.adapters import open_adapter

    adapter = open_adapter(output, routers=True)
    provenance = adapter.provenance.to_json() if adapter.provenance else {}
    provenance.pop("schema", None)
    return {"output": str(output), "fingerprint": adapter.fingerprint, **provenance}


def _lines(plan: "Plan") -> list[str]:
    record = plan.to_json()
    settings = [
        f"  {name:<16} {value}" for name, value in record["configuration"].items() if value is not None
    ]
    memory = record["memory"]
    parts = ("weights", "adapter", "optimizer", "batch", "activations")
    fits = {True: "fits", False: "does not fit", None: "whether it fits is not known"}
    return [
        f"would write {plan.output}: {', '.join(record['files'])}",
        f"{plan.examples:,} examples, {plan.trained_parameters:,} weights to train, {plan.parameters:,} kept",
        f"{plan.configuration.steps:,} steps, {plan.tokens:,} tokens, {plan.devices} devices",
        f"on each device {_size(memory['needed'])} of {_size(memory['available'])}, {fits[memory['fits']]}: "
        + ", ".join(f"{name} {_size(memory[name])}" for name in parts),
        *settings,
    ]


def _size(count: int | None) -> str:
    return "?" if count is None else f"{count / 1e9:.2f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
