"""Whether a loader will serve an adapter whole."""

from pamctl.serving.checking import TARGETS, Finding, ServingReport, check_serving

__all__ = ["TARGETS", "Finding", "ServingReport", "check_serving"]
