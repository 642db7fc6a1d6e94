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

    TASK is an embedded task's name, a .jsonl, a .toml, or a folder that holds one of them or data as it was
    released.

    A JSONL task has one object a line: `image` (a path, relative to the file), `question` or `prefix` (the
    prompt, used word for word), one of `answer`, `suffix` or `answers` (a list), optionally `id`, `type` (of
    question) and `split`. Without any `split`, the file serves as both train and test. A folder may hold
    task.jsonl, or train.jsonl, val.jsonl and test.jsonl; a task.toml in it may name another `file`.

    Data as it was released needs no file of yours where `list` has a reader for it. A task.toml beside it
    says what differs, such as images that lie elsewhere:

    \b
      reader = "vqav2"
      images = ["/data/coco/train2014.zip", "/data/coco/val2014"]
      missing = "skip"
      [splits]
      test = "val[-10240:]"
      [subsample]
      train = 50000
      [recipe]
      epochs = 3
    """


@tasks.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of the table.")
def list_(as_json: bool) -> None:
    """List the embedded tasks, which need no download, and the readers of data as it was released.

    \b
    Example:
      pamctl tasks list
      pamctl tasks list --json
    """
    from rich.table import Table

    from pamctl.cli.output import print_json, print_result, print_table
    from pamctl.tasks.embedded import embedded_tasks
    from pamctl.tasks.readers import readers

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
        print_json("tasks", {"tasks": listed, "readers": [reader.to_json() for reader in readers().values()]})
        return
    table = Table("task", "train", "test", "what it asks", box=None, pad_edge=False)
    for task in found:
        table.add_row(
            task.name, str(len(task.split("train"))), str(len(task.split("test"))), task.description
        )
    print_table(table, to_stdout=True, whole=True)
    print_result("")
    table = Table("reader", "metric", "released at", "what it asks", box=None, pad_edge=False)
    for reader in readers().values():
        table.add_row(reader.name, reader.metric, reader.source, reader.description)
    print_table(table, to_stdout=True, whole=True)


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
    from pamctl.cli.picture import print_picture, side_by_side
    from pamctl.printable import harmless
    from pamctl.refusal import UsageRefusal
    from pamctl.tasks import open_task
    from pamctl.whole_output import whole_file

    opened = open_task(task)
    examples = opened.split(split)
    if index >= len(examples):
        raise UsageRefusal(f"--index {index}: split {split} has {len(examples)} examples", "count from 0")
    example = examples[index]
    images = example.load_images()
    image = side_by_side(images)
    text = f"id:      {example.id}\nprompt:  {example.prefix}\nanswers: {', '.join(example.answers)}"
    if example.type:
        text += f"\ntype:    {example.type}"
    if len(images) > 1:
        text += f"\nframes:  {len(images)}"
    if save:
        with whole_file(Path(save), force=force) as draft:
            image.save(draft, format="PNG")
        say(text)
        print_result(save)
        return
    print_result(harmless(text))
    print_picture(image, Console())


@tasks.command()
@click.argument("task")
@click.option("--base", help="Count tokens as this base does; default: the embedded one, and only warn.")
@click.option("--all-images", is_flag=True, help="Decode every image, where 4000 of more are drawn.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")
def check(task: str, base: str | None, all_images: bool, as_json: bool) -> None:
    """Read every example of TASK and decode its images; exit 1 if anything is wrong.

    Errors are records at fault, named by file and line, missing files, missing or broken images, empty
    answers, answers that cannot be tokenised or are cut by the text length, an id twice in a split, and an
    image with its prompt in two splits. It reads one record after the other: a release of any size fits.

    \b
    Example:
      pamctl tasks check tiny-gqa
      pamctl tasks check my-task.jsonl --json
      pamctl tasks check my-task.jsonl --base tiny
    """
    from dataclasses import asdict

    from pamctl.cli.output import Progress, print_json, print_result
    from pamctl.printable import printable
    from pamctl.tasks.check import check_task

    with Progress("check", None, unit="example") as progress:
        found = check_task(task, progress.update, base=base, every_image=all_images)
    if as_json:
        print_json("task-check", {"task": found.name, **asdict(found), "ok": found.ok})
    else:
        for line in found.lines():
            print_result(printable(line))
    if not found.ok:
        raise click.exceptions.Exit(1)
