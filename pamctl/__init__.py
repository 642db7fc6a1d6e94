"""Continual learning by LoRA merging: train, align, merge and evaluate adapters on disk."""

__version__ = "0.1.0"
