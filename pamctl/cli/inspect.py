"""`pamctl inspect`: what is in an adapter, and how it relates to another."""

from typing import Any

import click


@click.command()
@click.argument("adapter")
@click.argument("other", required=False)
@click.option("--tensors", is_flag=True, help="List every module.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def inspect(adapter: str, other: str | None, tensors: bool, as_json: bool) -> None:
    """Show what ADAPTER holds and where it comes from; with OTHER, how the two relate.

    With two adapters: the cosine of their deltas, the weights whose signs differ, and the cross-term error,
    which is how far averaging their factors would be from averaging their deltas.

    \b
    Examples:
      pamctl inspect merged
      pamctl inspect first second --tensors
      pamctl inspect merged --json
    """
    from pamctl.cli.blas import use_one_thread

    use_one_thread()
    from pamctl.adapters import open_adapter
    from pamctl.cli.output import print_json, print_result
    from pamctl.inspection import describe, relate

    opened = open_adapter(adapter)
    contents = describe(opened)
    relation = relate(opened, open_adapter(other)) if other else None
    if as_json:
        if not tensors:
            for record in filter(None, (contents, relation)):
                record.pop("modules")
        print_json("inspect", {"adapter": contents, "other": relation})
        return
    print_result("\n".join(_contents(contents, tensors)))
    if relation:
        print_result("\n".join(["", *_relation(relation, tensors)]))


def _contents(contents: dict[str, Any], tensors: bool) -> list[str]:
    record, base = contents["provenance"] or {}, contents["base"]
    parents = ", ".join(parent["fingerprint"][:12] for parent in record.get("parents", ()))
    dtypes = _listed(contents["dtypes"])
    lines = [
        f"adapter      {contents['name']}",
        f"fingerprint  {contents['fingerprint']}",
        f"base         {base['name'] or 'unknown'} {(base['fingerprint'] or '')[:12]}".rstrip(),
        f"made by      {record.get('kind', 'not pamctl')} {record.get('method') or ''}".rstrip(),
        f"stage        {record.get('stage', 'unknown')}",
        f"tasks        {', '.join(record.get('tasks', ())) or 'unknown'}",
        f"parents      {parents or 'none'}",
        f"rank         {_listed(contents['ranks'])}   scale {_listed(contents['scales'])}",
        f"size         {contents['parameters']:,} weights, {contents['bytes']:,} bytes, {dtypes}",
        f"delta norm   {contents['norm']:.4g}",
        "",
        f"{'tower':<22}{'kind':<12}{'modules':>8}{'rank':>8}{'delta norm':>12}",
    ]
    for group in contents["groups"]:
        lines.append(
            f"{group['tower']:<22}{group['kind']:<12}{group['modules']:>8}"
            f"{_listed(group['ranks']):>8}{group['norm']:>12.4g}"
        )
    if tensors:
        lines += ["", f"{'module':<58}{'rank':>5}{'inputs':>8}{'outputs':>8}{'scale':>8}{'delta norm':>12}"]
        for module in contents["modules"]:
            lines.append(
                f"{module['module']:<58}{module['rank']:>5}{module['inputs']:>8}{module['outputs']:>8}"
                f"{module['scale']:>8.4g}{module['norm']:>12.4g}"
            )
    return lines


def _relation(relation: dict[str, Any], tensors: bool) -> list[str]:
    lines = [
        f"other        {relation['name']}",
        f"fingerprint  {relation['fingerprint']}",
        f"cosine       {_number(relation['cosine'])}",
        f"norm         {_number(relation['norm_ratio'])} times the first's",
        f"start        {'shared' if relation['share_a_start'] else 'not recorded as shared'}",
    ]
    if relation["factor_mismatch"]:
        lines.append(f"factors      do not fit: {relation['factor_mismatch']}")
    else:
        lines += [
            f"signs        {relation['differ_percent']:.2f} % of all weights differ, "
            f"{relation['conflict_percent']:.2f} % of the other's largest half",
            f"cross term   {_number(relation['cross_term_error_percent'])} %",
        ]
    for which in ("first", "second"):
        if only := relation[f"only_in_{which}"]:
            lines.append(f"only in the {which}: {len(only)} modules, such as {only[0]}")
    if tensors:
        lines += ["", f"{'module':<58}{'cosine':>10}{'signs differ':>14}"]
        for module in relation["modules"]:
            differ = f"{module['differ_percent']:.2f} %" if "differ_percent" in module else ""
            lines.append(f"{module['module']:<58}{_number(module['cosine']):>10}{differ:>14}")
    return lines


def _listed(values: list[Any]) -> str:
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.4f}"
