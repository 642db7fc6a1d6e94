import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from pamctl.hub.downloading import download
from pamctl.refusal import Refusal
from tests.hub.hub_client import ADAPTER, CONFIG, WEIGHTS, contents, ended
from tests.hub_server import Fault, Hub, sha256


@pytest.fixture
def large(hub: Hub) -> bytes:
    """More than the 10 MiB that the client keeps in memory before it writes."""
    content = random.Random(1).randbytes(12 << 20)
    hub.repository("org/name").commit({WEIGHTS: content})
    return content


def test_a_dropped_connection_is_resumed_at_once(hub, client, large):
    hub.faults.append(Fault("GET", "?signed", times=1, drop_after=11 << 20))
    assert contents(client.fetch(), WEIGHTS)[WEIGHTS] == large
    first, second = hub.asked("GET", "?signed")
    assert "range" not in first.headers
    assert second.headers["range"] == f"bytes={10 << 20}-"


def test_a_download_that_was_cut_off_is_resumed_by_the_next_process(hub, client, large):
    hub.faults += [Fault("GET", "?signed", times=1, drop_after=11 << 20), Fault("GET", "?signed", status=500)]
    refused = client.fetch()
    assert "HTTP 500" in refused["what"]
    assert [path.stat().st_size for path in client.blobs()] == [10 << 20]
    hub.faults.clear()
    assert contents(client.fetch(), WEIGHTS)[WEIGHTS] == large
    assert hub.asked("GET", "?signed")[-1].headers["range"] == f"bytes={10 << 20}-"
    assert [path.stat().st_size for path in client.blobs()] == [12 << 20]


def test_a_download_that_was_killed_is_resumed_by_the_next_process(hub, client, large):
    hub.faults.append(Fault("GET", "?signed", times=1, drop_after=11 << 20, stall=30))
    process = client.start(("fetch", "hf://org/name", [WEIGHTS]))
    until = time.monotonic() + 20
    while sum(path.stat().st_size for path in client.blobs()) < 10 << 20 and time.monotonic() < until:
        time.sleep(0.02)
    process.kill()
    process.communicate()
    assert contents(client.fetch(), WEIGHTS)[WEIGHTS] == large
    assert hub.asked("GET", "?signed")[-1].headers["range"] == f"bytes={10 << 20}-"


def test_a_store_that_cannot_resume_sends_all_again(hub, client, large):
    hub.faults += [
        Fault("GET", "?signed", times=1, drop_after=11 << 20),
        Fault("GET", "?signed", times=1, status=500),
        Fault("GET", "?signed", whole=True),
    ]
    client.fetch()
    assert contents(client.fetch(), WEIGHTS)[WEIGHTS] == large
    assert hub.asked("GET", "?signed")[-1].headers["range"] == f"bytes={10 << 20}-"


@pytest.mark.parametrize("kept", [0, 10 << 20])
def test_a_download_that_breaks_off_each_time_says_how_far_it_came(hub, tmp_path, monkeypatch, large, kept):
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    hub.blobs["x" * 64] = large
    hub.faults += [
        Fault("GET", "/x", times=1, drop_after=kept + 1000),
        Fault("GET", "/x", drop_after=1000),
    ]
    with pytest.raises(Refusal) as refusal:
        download(f"{hub.store}/{'x' * 64}", tmp_path / ("x" * 64), len(large), "org/name/x")
    assert (
        refusal.value.what == f"the download of org/name/x broke off, with {kept:,} of 12,582,912 bytes kept"
    )
    assert refusal.value.way_on.startswith("run again: it goes on from there")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) == kept


def test_what_another_left_of_a_download_is_held_to_the_hash_too(hub, client):
    left = client.home / "hub/models--org--name/blobs" / f"{sha256(ADAPTER[WEIGHTS])}.pamctl-incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"x" * 1000)
    assert "came damaged" in client.fetch()["what"]
    left.write_bytes(b"x" * 1_000_000)
    assert contents(client.fetch(), WEIGHTS)[WEIGHTS] == ADAPTER[WEIGHTS]


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("fault", [{"corrupt": True}, {"short": 3}], ids=["corrupt", "short"])
def test_a_damaged_download_is_refused_and_not_kept(hub, client, fault, name):
    hub.faults.append(Fault("GET", "?signed" if name == WEIGHTS else f"/{CONFIG}", times=1, **fault))
    refused, fetched = client.run(*[("fetch", "hf://org/name", [name])] * 2)
    assert refused["what"] == f"org/name/{name} came damaged: it is not what the Hub says it is"
    assert "run again" in refused["way_on"]
    assert contents(fetched, name)[name] == ADAPTER[name]
    assert "range" not in hub.asked("GET", "?signed" if name == WEIGHTS else f"/{CONFIG}")[-1].headers


def test_two_processes_at_once_download_a_file_once(hub, client):
    hub.faults.append(Fault("GET", "?signed", stall=0.7))
    processes = [client.start(("fetch", "hf://org/name", list(ADAPTER))) for _ in range(3)]
    for process in processes:
        assert contents(*ended(process), WEIGHTS)[WEIGHTS] == ADAPTER[WEIGHTS]
    assert len(hub.asked("GET", "?signed")) == 1
    assert len(client.blobs()) == 2


@pytest.mark.skipif(not Path("/dev/full").exists() or not shutil.which("prlimit"), reason="needs prlimit")
def test_a_full_disk_is_told(hub, client):
    process = client.start(("fetch", "hf://org/name", list(ADAPTER)))
    subprocess.run(["prlimit", f"--pid={process.pid}", "--fsize=100000"], check=True)
    told = ended(process)[0]
    assert WEIGHTS in told["what"]
    assert "ulimit" in told["way_on"]


def test_what_is_too_large_for_plain_http_is_refused_before_it_is_asked_for(tmp_path):
    with pytest.raises(Refusal, match="org/name/x has 64,424,509,440 bytes") as refusal:
        download("http://127.0.0.1:1/x", tmp_path / "blobs" / "x", 60 << 30, "org/name/x")
    assert "hf download" in refusal.value.way_on
    assert not list(tmp_path.iterdir())
