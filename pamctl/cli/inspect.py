"""`pamctl inspect`: what is in an adapter, how it relates to another, and whether it will be served whole."""

import click

from pamctl.cli.adapter_options import allow_pickle_option


@click.command()
@click.argument("adapter")
@click.argument("other", required=False)
@click.option("--tensors", is_flag=True, help="List every module.")
@click.option(
    "--no-norms", is_flag=True, help="Read the header only: no norms, ranks of deltas, fingerprint."
)
@click.option(
    "--target",
    type=click.Choice(["vllm", "peft", "diffusers", "mlx", "lorax"]),
    help="Check the files as they are: will this loader serve them whole? If not, fail.",
)
@click.option(
    "--server-options",
    metavar="OPTIONS",
    help="With --target: what the server will be started with, as '--max-lora-rank 32'.",
)
@allow_pickle_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(
    adapter: str,
    other: str | None,
    tensors: bool,
    no_norms: bool,
    target: str | None,
    server_options: str | None,
    allow_pickle: bool,
    as_json: bool,
) -> None:
    """Show what ADAPTER holds and where it comes from; with OTHER, how the two relate.

    Of each delta: its norm, its effective rank (the exponential of the entropy of its singular energies), and
    the ranks that keep 90 % and 99 % of its energy.

    With two adapters: the cosine of their deltas, how much of their spaces they share, the weights whose
    signs differ beside what chance explains at that cosine, and the cross-term error, which is how far
    averaging their factors would be from averaging their deltas.

    With --target it exits with 1 where the adapter would not be served whole, and says why and what mends it.

    \b
    Examples:
      pamctl inspect merged
      pamctl inspect first second --tensors
      pamctl inspect merged --json
      pamctl inspect merged --target vllm
    """
    from pamctl.cli.blas import use_one_thread
    from pamctl.refusal import UsageRefusal

    use_one_thread()
    if other and (target or no_norms):
        raise UsageRefusal(
            f"{'--target' if target else '--no-norms'} is for one adapter", f"leave {other} or the option out"
        )
    if target:
        _check(adapter, target, server_options or "", allow_pickle, as_json)
        return
    if server_options is not None:
        raise UsageRefusal("--server-options are for --target", "add --target, or leave them out")
    from pamctl.adapters import open_adapter
    from pamctl.cli.adapter_options import opened
    from pamctl.cli.inspect_text import contents_lines, relation_lines
    from pamctl.cli.output import print_json, print_result
    from pamctl.inspection import describe, relate

    first = open_adapter(adapter, allow_pickle=allow_pickle)
    contents = describe(first, norms=not no_norms)
    relation = relate(first, opened(other, allow_pickle)) if other else None
    if as_json:
        if not tensors:
            for record in filter(None, (contents, relation)):
                record.pop("modules")
        print_json("inspect", {"adapter": contents, "other": relation})
        return
    print_result("\n".join(contents_lines(contents, tensors)))
    if relation:
        print_result("\n".join(["", *relation_lines(relation, tensors)]))


def _check(adapter: str, target: str, options: str, allow_pickle: bool, as_json: bool) -> None:
    from pamctl.cli.inspect_text import serving_lines
    from pamctl.cli.output import print_json, print_result
    from pamctl.serving import check_serving

    report = check_serving(adapter, target, options=options.split(), allow_pickle=allow_pickle)
    if as_json:
        print_json("serving", report.to_json())
    else:
        print_result("\n".join(serving_lines(report)))
    if not report.served:
        raise click.exceptions.Exit(1)
