"""How a trained run becomes an adapter on disk: its factors, where it comes from, and its metrics."""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from pamctl import __version__
from pamctl.adapters import Adapter, save_adapter
from pamctl.adapters.provenance import BaseModel, Provenance
from pamctl.adapters.sources import ADAPTER_FILES
from pamctl.alignment import compare_signs
from pamctl.models.lora import lora_to_adapter
from pamctl.models.paligemma import Lora
from pamctl.training.metrics_log import MetricsLog
from pamctl.training.preparation import Prepared
from pamctl.whole_output import whole_folder


def finished_adapter(prepared: Prepared, lora: Lora, name: str) -> Adapter:
    """Return the trained adapter with its provenance."""
    run, before = prepared.run, prepared.global_adapter
    config, base = run.configuration, run.base
    modules = lora_to_adapter(lora, config.scale, base.config)
    learned = before.provenance.tasks if before is not None and before.provenance else ()
    provenance = Provenance(
        kind="trained",
        stage="trained",
        tasks=(*learned, config.task),
        # A parent is what the factors started from; merging relies on it.
        parents=() if before is None or config.start == "fresh" else (before.as_parent(),),
        base=BaseModel(base.name, base.fingerprint),
        method=config.method,
        parameters=config.to_json(),
        seed=config.seed,
        conflicts=_conflicts(Adapter(modules, name=name), prepared),
        versions={"pamctl": __version__, "jax": version("jax"), "optax": version("optax")},
    )
    return Adapter(modules, provenance, base.name, name)


def write_finished(adapter: Adapter, log: MetricsLog, out: Path, *, force: bool = False) -> None:
    """Write an adapter and its metrics.jsonl, complete or not at all."""
    with whole_folder(out, force=force, known=ADAPTER_FILES.__contains__) as draft:
        save_adapter(adapter, draft)
        log.write_to(draft)


def _conflicts(adapter: Adapter, prepared: Prepared) -> dict[str, Any] | None:
    """The signs of the finished adapter against the global one, by the method's own top_p and scope."""
    if prepared.global_adapter is None:
        return None
    rule = prepared.run.configuration.alignment
    if rule is None:
        _, report = compare_signs(adapter, prepared.global_adapter)
    else:
        _, report = compare_signs(adapter, prepared.global_adapter, rule.top_p, rule.scope)
    return {
        "overall": report.overall.to_json(),
        **{name: of.to_json() for name, of in report.factors.items()},
    }
