"""`pamctl tasks`: which tasks there are, what they look like, whether one is sound."""

import click


@click.group()
def tasks() -> None:
    """List the embedded tasks, look at an example, or check a task before training on it.

    \b
    Example:
      pamctl tasks list
      pamctl tasks show tiny-gqa
      pamctl tasks check my-task.jsonl

    A JSONL task has one object a line: `image` (a path, relative to the file), `question` or `prefix` (the
    prompt, used word for word), one of `answer`, `suffix` or `answers` (a list), optionally `id` and `split`.
    Without any `split`, the file serves as both train and test. A folder may hold task.jsonl, or train.jsonl,
    val.jsonl and test.jsonl.
    """


@tasks.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def list_(as_json: bool) -> None:
    """List the embedded tasks, which need no download.

    \b
    Example:
      pamctl tasks list
      pamctl tasks list --json
    """
    from rich.table import Table

    from pamctl.cli.output import print_json, print_table
    from pamctl.tasks.embedded import embedded_tasks

    found = embedded_tasks().values()
    if as_json:
        listed = [
            {
                "name": task.name,
                "description": task.description,
                "metric": task.metric,
                "splits": {split: len(examples) for split, examples in task.splits.items()},
            }
            for task in found
        ]
        print_json("tasks", {"tasks": listed})
        return
    table = Table("task", "train", "test", "what it asks", box=None, pad_edge=False)
    for task in found:
        table.add_row(
            task.name, str(len(task.split("train"))), str(len(task.split("test"))), task.description
        )
    print_table(table, to_stdout=True)


@tasks.command()
@click.argument("task")
@click.option(
    "--index", default=0, show_default=True, type=click.IntRange(min=0), help="Which example, from 0."
)
@click.option("--split", default="test", show_default=True, help="Of which split.")
@click.option(
    "--save", type=click.Path(dir_okay=False), help="Write the image here as PNG instead of drawing it."
)
@click.option("--force", is_flag=True, help="Replace the file of --save if it exists.")
def show(task: str, index: int, split: str, save: str | None, force: bool) -> None:
    """Print one example of TASK: its prompt, its answers, and its image drawn with characters.

    With --save, stdout carries only the path of the image.

    \b
    Example:
      pamctl tasks show tiny-scienceqa --index 3
      pamctl tasks show tiny-textvqa --save example.png
    """
    from pathlib import Path

    from rich.console import Console

    from pamctl.cli.output import print_result, say
    from pamctl.cli.picture import print_picture
    from pamctl.refusal import UsageRefusal
    from pamctl.tasks import open_task
    from pamctl.whole_output import whole_file

    examples = open_task(task).split(split)
    if index >= len(examples):
        raise UsageRefusal(f"--index {index}: split {split} has {len(examples)} examples", "count from 0")
    example = examples[index]
    image = example.load_images()[0]
    text = f"id:      {example.id}\nprompt:  {example.prefix}\nanswers: {', '.join(example.answers)}"
    if save:
        with whole_file(Path(save), force=force) as draft:
            image.save(draft, format="PNG")
        say(text)
        print_result(save)
        return
    print_result(text)
    print_picture(image, Console())


@tasks.command()
@click.argument("task")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check(task: str, as_json: bool) -> None:
    """Read every example of TASK and decode every image; exit 1 if anything is wrong.

    Errors are lines at fault, missing or broken images, empty answers, an id twice in a split, and an image
    with its prompt in two splits.

    \b
    Example:
      pamctl tasks check tiny-gqa
      pamctl tasks check my-task.jsonl --json
    """
    from dataclasses import asdict

    from pamctl.cli.output import print_json, print_result
    from pamctl.tasks.check import check_task

    found = check_task(task)
    if as_json:
        print_json("task-check", {"task": found.name, **asdict(found), "ok": not found.errors})
    else:
        counts = ", ".join(f"{split} {count}" for split, count in found.splits.items())
        print_result(f"{found.name}: {counts or 'no examples'}")
        for kind, messages in (("error", found.errors), ("warning", found.warnings)):
            for message in messages:
                print_result(f"{kind}: {message}")
        print_result("sound" if not found.errors else f"{len(found.errors)} errors")
    if found.errors:
        raise click.exceptions.Exit(1)
