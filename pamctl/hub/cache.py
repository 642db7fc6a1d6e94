"""Where the Hub's cache keeps a repository: laid out as huggingface_hub does, so that both share it."""

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pamctl.hub.references import is_commit


@dataclass(frozen=True)
class RepositoryCache:
    """The folder of one repository in the cache."""

    folder: Path

    @classmethod
    def of(cls, repository: str) -> "RepositoryCache":
        from huggingface_hub import constants
        from huggingface_hub.file_download import repo_folder_name

        return cls(Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model"))

    def snapshot(self, commit: str) -> Path:
        """The folder that has a commit's files under their names, each a link to a blob."""
        return self.folder / "snapshots" / commit

    def blob(self, etag: str) -> Path:
        """The file of a content, which commits share."""
        return self.folder / "blobs" / etag

    def link(self, blob: Path, commit: str, name: str) -> None:
        """Have a blob under a name in a commit's folder."""
        place = self.snapshot(commit) / name
        place.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            place.symlink_to(os.path.relpath(blob, place.parent))

    def files(self, commit: str) -> list[str]:
        """The names of a commit's files that are here."""
        root = self.snapshot(commit)
        return [file.relative_to(root).as_posix() for file in root.rglob("*") if file.is_file()]

    def commit_of(self, revision: str | None) -> str | None:
        """The commit that a revision last stood for, or None where it was never fetched."""
        commit = revision or "main"
        if not is_commit(commit):
            record = self.folder / "refs" / commit
            commit = record.read_text(encoding="utf-8").strip() if record.is_file() else ""
        return commit if is_commit(commit) else None

    def remember(self, revision: str | None, commit: str) -> None:
        """Record what a branch or tag stands for, for times without a network."""
        if revision == commit:
            return
        record = self.folder / "refs" / (revision or "main")
        draft = record.with_name(f"{record.name}.{os.getpid()}")
        with suppress(OSError):  # a cache that others filled may be read-only
            record.parent.mkdir(parents=True, exist_ok=True)
            draft.write_text(commit, encoding="utf-8")
            draft.replace(record)
