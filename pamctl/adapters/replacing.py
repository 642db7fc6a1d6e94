"""Which files of an earlier adapter go when another comes to its place, where other files lie too."""

from collections.abc import Sequence

from pamctl.adapters.sources import (
    ADAPTER_FILES,
    CHECKPOINT_FILES,
    CONFIG_NAME,
    NON_LORA_NAME,
    ORBAX_NAME,
    RECORD_NAME,
    TRAINING_FOLDERS,
    choose_weights,
)
from pamctl.refusal import Refusal

_WAY_ON = "take out of it what is in the way, or choose another repository or another name for the output"


def replaced_files(there: Sequence[str], new: Sequence[str], where: str, *, is_folder: bool) -> list[str]:
    """The files to delete as a new adapter comes, so that its place is read as that adapter.

    A folder's adapter takes the place of any earlier one, whoever put it there: what has the name of an
    adapter's file and is not overwritten goes, all else stays. A single file deletes nothing.

    Args:
        there: the names of all files there, of those in folders with their path.
        new: those of the new adapter.
        where: to call the place by.
        is_folder: whether the new adapter is a folder's; else it is a single file, with its card.

    Raises:
        Refusal: `where`, read without naming a file in it, would not be the new adapter.
    """
    old = [name for name in _adapter_files(there) if name not in new]
    gone = old if is_folder else []
    found = _chosen([name for name in {*there, *new} if name not in gone], where)
    way_on = f"write a folder, which takes the other's place, or {_WAY_ON}" if old and not gone else _WAY_ON
    if found not in new:
        raise Refusal(f"{where} holds {found}, which would be read in place of the new adapter", way_on)
    for name in (CONFIG_NAME, RECORD_NAME, NON_LORA_NAME):
        if name in old and name not in gone:
            raise Refusal(
                f"{where} holds {name} of another adapter, with which {found} would be read", way_on
            )
    return gone


def _chosen(names: Sequence[str], where: str) -> str:
    """The file that is read where no file is named."""
    try:
        return choose_weights(names, f"with what is there, {where}")
    except Refusal as refusal:
        raise Refusal(refusal.what, _WAY_ON) from refusal


def _adapter_files(names: Sequence[str]) -> list[str]:
    """Those files that have an adapter's names; a checkpoint's only where it is an adapter's."""
    is_checkpoint = ORBAX_NAME in names and any(
        name.startswith(("state/modules.", "state/extras.")) for name in names
    )
    unsure = {*TRAINING_FOLDERS} if is_checkpoint else {*TRAINING_FOLDERS, *CHECKPOINT_FILES}
    known = {*ADAPTER_FILES, NON_LORA_NAME} - unsure
    return [name for name in names if name.split("/")[0] in known]
