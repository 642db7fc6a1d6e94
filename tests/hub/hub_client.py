"""A process of its own for each try: the client reads its settings when it is imported."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

TOKEN = "hf_secretsecretsecret"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = {CONFIG: b'{"r": 2}', WEIGHTS: random.Random(0).randbytes(300_000)}

CLIENT = """
import json, os, sys
from pathlib import Path
from pamctl import hub
from pamctl.refusal import Refusal

def replaced(there, new):
    if "refused" in there:
        raise Refusal("it holds refused", "take it away")
    return [name for name in there if name.startswith("old") and name not in new]

for name, *arguments in json.loads(sys.argv[1]):
    try:
        if name == "fetch":
            reference, chosen = arguments
            found = hub.fetch(hub.hub_reference(reference), lambda names: [n for n in names if n in chosen])
            told = {**vars(found), "folder": str(found.folder)}
        elif name == "fetch_absent":
            told = str(hub.fetch(hub.hub_reference(arguments[0]), lambda names: ["absent"]))
        elif name == "push":
            told = {"url": hub.push(Path(arguments[0]), arguments[1], "An adapter", replaced)}
        else:
            told = {"refused": hub.refuse_no_token()}
    except Refusal as refusal:
        told = {"what": refusal.what, "way_on": refusal.way_on}
    print(json.dumps(told))
"""


class Client:
    """Processes that share a Hub's cache."""

    def __init__(self, home: Path, endpoint: str) -> None:
        self.home, self.endpoint = home, endpoint

    def start(self, *steps: tuple[Any, ...], **settings: str) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment |= {"HF_HOME": str(self.home), "HF_ENDPOINT": self.endpoint, **settings}
        return subprocess.Popen(
            [sys.executable, "-c", CLIENT, json.dumps(steps)],
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def run(self, *steps: tuple[Any, ...], **settings: str) -> list[dict[str, Any]]:
        return ended(self.start(*steps, **settings))

    def fetch(self, reference: str = "hf://org/name", *chosen: str, **settings: str) -> dict[str, Any]:
        return self.run(("fetch", reference, chosen or (CONFIG, WEIGHTS)), **settings)[0]

    def blobs(self) -> list[Path]:
        return sorted(self.home.glob("hub/*/blobs/*"))


def ended(process: subprocess.Popen[str]) -> list[dict[str, Any]]:
    """What each step told; nothing may come on stderr, where there is no terminal, and never a token."""
    stdout, stderr = process.communicate(timeout=50)
    assert (stderr, process.returncode) == ("", 0)
    assert TOKEN not in stdout
    return [json.loads(line) for line in stdout.splitlines()]


def contents(told: dict[str, Any], *names: str) -> dict[str, bytes]:
    assert "folder" in told, told
    return {name: (Path(told["folder"]) / name).read_bytes() for name in names}
