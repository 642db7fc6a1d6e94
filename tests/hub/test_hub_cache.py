import os
import subprocess
import sys
from pathlib import Path

from tests.hub.hub_client import ADAPTER, CONFIG, WEIGHTS, Client, contents
from tests.hub_server import Fault


def test_the_cache_is_the_one_that_huggingface_hub_reads(hub, client):
    client.fetch()
    before = len(hub.requests)
    found = subprocess.run(
        [sys.executable, "-c", "from huggingface_hub import hf_hub_download, scan_cache_dir\n"
         f"print(hf_hub_download('org/name', {WEIGHTS!r}, local_files_only=True))\n"
         "print(scan_cache_dir().warnings)"],
        env={**os.environ, "HF_HOME": str(client.home), "HF_ENDPOINT": hub.endpoint},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    assert Path(found[0]).read_bytes() == ADAPTER[WEIGHTS]
    assert found[1] == "[]"
    assert not [request for request in hub.requests[before:] if "org/name" in request.path]


def test_offline_uses_the_cache_and_refuses_what_it_has_not(hub, client):
    online = client.fetch("hf://org/name@main")
    asked = len(hub.requests)
    told = client.run(
        ("fetch", "hf://org/name", (CONFIG, WEIGHTS)),
        ("fetch", f"hf://org/name@{online['commit']}", (CONFIG,)),
        ("fetch", "hf://org/name@v2", (CONFIG,)),
        ("fetch", "hf://org/other", (CONFIG,)),
        ("fetch", "hf://org/name/sub", (CONFIG,)),
        ("fetch", "hf://org/name", ("absent",)),
        HF_HUB_OFFLINE="1",
    )
    assert told[0] == {**online, "notes": []}
    assert told[1]["commit"] == online["commit"]
    for refused, name in zip(told[2:], ("org/name@v2", "org/other", "org/name", "org/name"), strict=True):
        assert refused["what"] == f"{name} is not in the Hub's cache, and HF_HUB_OFFLINE is set"
        assert "unset HF_HUB_OFFLINE" in refused["way_on"]
    assert len(hub.requests) == asked


def test_without_a_network_the_cache_is_used_with_a_note(hub, client):
    online = client.fetch()
    hub.faults.append(Fault("GET", "/api/models", times=1, status=503))
    away = Client(client.home, "http://127.0.0.1:9")
    for found in (client.fetch(), away.fetch()):
        assert found["commit"] == online["commit"]
        assert online["commit"] in found["notes"][0]
        assert contents(found, WEIGHTS)[WEIGHTS] == ADAPTER[WEIGHTS]
    refused = away.fetch("hf://org/other")
    assert refused["what"] == "the Hub cannot be reached at http://127.0.0.1:9 for org/other"
    assert "network" in refused["way_on"]


def test_an_update_that_failed_does_not_hide_what_was_whole(hub, client):
    old = client.fetch()["commit"]
    hub.repository("org/name").commit({CONFIG: b"{}", WEIGHTS: b"new"})
    hub.faults.append(Fault("HEAD", WEIGHTS, status=500))
    assert "HTTP 500" in client.fetch()["what"]
    assert client.fetch(HF_HUB_OFFLINE="1")["commit"] == old


def test_a_read_only_cache_that_holds_all_is_read(hub, client):
    told = client.fetch()
    folders = [path for path in client.home.rglob("*") if path.is_dir() and not path.is_symlink()]
    for folder in folders:
        folder.chmod(0o555)
    try:
        assert client.fetch() == told
    finally:
        for folder in folders:
            folder.chmod(0o755)
