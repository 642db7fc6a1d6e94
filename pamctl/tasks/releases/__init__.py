"""Data as it was released: what every reader of `pamctl/tasks/readers/` builds on."""

from pamctl.tasks.releases.reader import Reader
from pamctl.tasks.releases.record import Record, first_record, read_records
from pamctl.tasks.releases.release import MissingImage, Release, example

__all__ = ["MissingImage", "Reader", "Record", "Release", "example", "first_record", "read_records"]
