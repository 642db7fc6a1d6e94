"""The numbers of a run as TensorBoard shows them, beside metrics.jsonl, which is always written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pamctl.refusal import UsageRefusal


class TensorBoard:
    """Writes scalars to event files in a folder.

    Args:
        folder: made if it is not there.
        first: the first step that will be written; a run before may have got beyond it.

    Raises:
        UsageRefusal: the library is not installed.
    """

    def __init__(self, folder: Path, first: int) -> None:
        try:
            from tensorboardX import SummaryWriter
        except ImportError:
            raise UsageRefusal(
                "--tensorboard needs tensorboardX, which is not installed",
                "pip install 'pamctl[tensorboard]', or read metrics.jsonl",
            ) from None
        self._writer = SummaryWriter(str(folder), purge_step=first, write_to_disk=True)

    def event(self, name: str, fields: Mapping[str, Any]) -> None:
        """Write the numbers of a `step` or `align` event; others are passed over."""
        if name == "step":
            for scalar in ("loss", "learning_rate"):
                self._writer.add_scalar(f"train/{scalar}", fields[scalar], fields["step"])
        if name == "align":
            for count in ("differ", "conflicts"):
                for of, percent in fields[count]["percent"].items():
                    self._writer.add_scalar(f"align/{count}_{of}_percent", percent, fields["step"])

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
