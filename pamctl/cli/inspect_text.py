"""The records of `pamctl.inspection` as lines of text."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pamctl.serving import ServingReport


def contents_lines(contents: dict[str, Any], tensors: bool) -> list[str]:
    """One adapter: its figures, then a table by tower and kind, then each module where asked for."""
    measured = "norm" in contents
    lines = [*_origin(contents), *_lineage(contents), *_sizes(contents)]
    if measured:
        lines.append(
            f"delta        norm {contents['norm']:.4g}, "
            f"effective rank {_number(contents['effective_rank'], 1)}; "
            f"rank {contents['rank_90']} keeps 90 % of the energy, rank {contents['rank_99']} 99 %"
        )
    for extra in contents["extras"]:
        lines.append(
            f"extra        {extra['role']}: {extra['tensors']} tensors, {extra['bytes']:,} bytes, "
            f"such as {extra['names'][0]}"
        )
    lines += [f"note         {note}" for note in contents["notes"]]
    head = ["tower", "kind", "modules", "layers", "rank", "scale", "dtype"]
    rows = [
        [
            group["tower"],
            group["kind"],
            str(group["modules"]),
            str(group["layers"]),
            _listed(group["ranks"]),
            _listed(group["scales"]),
            _listed(group["dtypes"]),
            *_figures(group, measured),
        ]
        for group in contents["groups"]
    ]
    lines += ["", *_table([*head, *_figure_names(measured)], rows, words=2)]
    if tensors:
        head = ["module", "layer", "rank", "inputs", "outputs", "scale", "dtype"]
        rows = [
            [
                module["module"],
                module["layer"],
                str(module["rank"]),
                str(module["inputs"]),
                str(module["outputs"]),
                _listed([module["scale"]]),
                module["dtype"],
                *_figures(module, measured),
            ]
            for module in contents["modules"]
        ]
        lines += ["", *_table([*head, *_figure_names(measured)], rows, words=2)]
    return lines


def relation_lines(relation: dict[str, Any], tensors: bool) -> list[str]:
    """Two adapters: their figures, then each shared module where asked for."""
    overlaps = (_number(relation[f"overlap_{side}"], 3) for side in ("left", "right"))
    lines = [
        f"other        {relation['name']}",
        f"fingerprint  {relation['fingerprint']}",
        f"shared       {relation['shared_modules']} modules",
        f"cosine       {_number(relation['cosine'])}",
        f"norm         {_number(relation['norm_ratio'])} times the first's",
        "overlap      {} of the spaces on the left (outputs), {} on the right (inputs)".format(*overlaps),
        f"delta signs  {_delta_signs(relation['delta_signs'])}",
        f"start        {'shared' if relation['share_a_start'] else 'not recorded as shared'}",
    ]
    if relation["factor_mismatch"]:
        lines.append(f"factors      do not fit: {relation['factor_mismatch']}")
    else:
        lines += [
            f"signs        {relation['differ_percent']:.2f} % of all weights of the factors differ, "
            f"{relation['conflict_percent']:.2f} % of the other's largest half",
            f"cross term   {_number(relation['cross_term_error_percent'])} %",
        ]
    for which in ("first", "second"):
        if only := relation[f"only_in_{which}"]:
            lines.append(f"only in the {which}: {len(only)} modules, such as {only[0]}")
    if tensors:
        lines += ["", *_table(*_related_modules(relation["modules"]))]
    return lines


def serving_lines(report: "ServingReport") -> list[str]:
    """The verdict, then for each finding where, why and what mends it."""
    if report.served:
        return [f"{report.adapter} is served whole by {report.target}"]
    lines = [f"{report.adapter} is not served whole by {report.target}"]
    for finding in report.findings:
        lines += [f"{finding.rule}: {finding.where}", f"  why   {finding.why}", f"  mend  {finding.mend}"]
    return lines


def _origin(contents: dict[str, Any]) -> list[str]:
    base = contents["base"]
    hub = f", {contents['repository']} at {contents['commit']}" if contents["repository"] else ""
    fingerprint = contents["fingerprint"] or "not computed"
    if contents["fingerprint_verified"]:
        fingerprint += " (as recorded)"
    elif contents["fingerprint"] and "norm" not in contents:
        fingerprint += " (recorded, not verified)"
    return [
        f"adapter      {contents['name']}",
        f"format       {contents['format'] or 'none'}{hub}",
        f"fingerprint  {fingerprint}",
        f"base         {base['name'] or 'unknown'} {(base['fingerprint'] or '')[:12]}".rstrip(),
    ]


def _lineage(contents: dict[str, Any]) -> list[str]:
    record = contents["provenance"]
    if record is None:
        return ["made by      not pamctl"]
    parents = ", ".join(
        parent["fingerprint"][:12] + (f" ({parent['name']})" if parent["name"] else "")
        for parent in record["parents"]
    )
    return [
        f"made by      {record['kind']} {record['method'] or ''}".rstrip(),
        f"stage        {record['stage']}",
        f"tasks        {', '.join(record['tasks']) or 'none recorded'}",
        f"parents      {parents or 'none'}",
    ]


def _sizes(contents: dict[str, Any]) -> list[str]:
    modules = sum(group["modules"] for group in contents["groups"])
    return [
        f"modules      {modules} in {contents['layers']} layers",
        f"rank         {_listed(contents['ranks'])}   scale {_listed(contents['scales'])}",
        f"size         {contents['parameters']:,} weights, {contents['bytes']:,} bytes, "
        f"{_listed(contents['dtypes'])}",
    ]


def _figure_names(measured: bool) -> list[str]:
    return ["delta norm", "eff. rank", "90 %", "99 %"] if measured else []


def _figures(record: dict[str, Any], measured: bool) -> list[str]:
    if not measured:
        return []
    return [
        f"{record['norm']:.4g}",
        _number(record["effective_rank"], 1),
        str(record["rank_90"]),
        str(record["rank_99"]),
    ]


def _delta_signs(signs: dict[str, Any]) -> str:
    if signs["conflict_percent"] is None:
        return "undefined: no weight is in both deltas"
    how = "all weights counted"
    if signs["method"] == "sample":
        how = f"a sample of {signs['weights_a_module']} weights a module, seed {signs['seed']}, "
        how += f"standard error {signs['standard_error_percent']:.2f} %"
    return (
        f"{signs['conflict_percent']:.2f} % of the deltas' weights differ, {signs['gaussian_percent']:.2f} % "
        f"by chance at their cosines: an excess of {signs['excess_percent']:.2f} % ({how})"
    )


def _related_modules(modules: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    head = ["module", "cosine", "norm ratio", "left", "right", "signs", "by chance", "factors", "cross term"]
    return head, [
        [
            module["module"],
            _number(module["cosine"]),
            _number(module["norm_ratio"]),
            _number(module["overlap_left"], 3),
            _number(module["overlap_right"], 3),
            _percent(module["delta_signs"]["conflict_percent"]),
            _percent(module["delta_signs"]["gaussian_percent"]),
            _percent(module.get("differ_percent")),
            _percent(module.get("cross_term_error_percent")),
        ]
        for module in modules
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], words: int = 1) -> list[str]:
    """Columns as wide as their widest cell, the first few, which hold words, to the left."""
    widths = [max(len(cell) for cell in column) for column in zip(head, *rows, strict=True)]
    return [
        "  ".join(
            cell.ljust(width) if at < words else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(f"{value:.4g}" if isinstance(value, float) else str(value) for value in values)


def _number(value: float | None, digits: int = 4) -> str:
    return "undefined" if value is None else f"{value:z.{digits}f}"


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.2f} %"
