import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.hub import HubReference, hub_reference, refuse_bad_repository
from pamctl.refusal import UsageRefusal
from tests.hub_server import Fault, Hub, serve, sha256

TOKEN = "hf_secretsecretsecret"
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
ADAPTER = {CONFIG: b'{"r": 2}', WEIGHTS: random.Random(0).randbytes(300_000)}
COMMIT = "0123456789" * 4

# The client reads its settings when it is imported, so each try is a process of its own.
CLIENT = """
import json, os, sys
from pathlib import Path
from pamctl import hub
from pamctl.refusal import Refusal

for name, *arguments in json.loads(sys.argv[1]):
    try:
        if name == "fetch":
            reference, chosen = arguments
            found = hub.fetch(hub.hub_reference(reference), lambda names: [n for n in names if n in chosen])
            told = {**vars(found), "folder": str(found.folder)}
        elif name == "fetch_absent":
            told = str(hub.fetch(hub.hub_reference(arguments[0]), lambda names: ["absent"]))
        elif name == "push":
            told = {"url": hub.push(Path(arguments[0]), arguments[1], "An adapter")}
        else:
            told = {"refused": hub.refuse_no_token()}
    except Refusal as refusal:
        told = {"what": refusal.what, "way_on": refusal.way_on}
    print(json.dumps(told))
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with serve() as served:
        served.repository("org/name").commit(ADAPTER)
        yield served


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


@pytest.fixture
def client(tmp_path: Path, hub: Hub) -> Client:
    return Client(tmp_path / "home", hub.endpoint)


def contents(told: dict[str, Any], *names: str) -> dict[str, bytes]:
    assert "folder" in told, told
    return {name: (Path(told["folder"]) / name).read_bytes() for name in names}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("hf://org/name", HubReference("org/name", None, "")),
        ("hf://org/name/", HubReference("org/name", None, "")),
        ("org/name", HubReference("org/name", None, "")),
        ("org/name@v1.0", HubReference("org/name", "v1.0", "")),
        ("org/name@v1/sub/folder/", HubReference("org/name", "v1", "sub/folder")),
        ("hf://org/name/sub/file.safetensors", HubReference("org/name", None, "sub/file.safetensors")),
        ("hf://org/name@refs%2Fpr%2F3/sub", HubReference("org/name", "refs/pr/3", "sub")),
        ("hf://org/name@refs/pr/3/sub", HubReference("org/name", "refs/pr/3", "sub")),
        ("hf://org/name@refs/other", HubReference("org/name", "refs", "other")),
        ("hf://org/name@feature%2Fx", HubReference("org/name", "feature/x", "")),
        ("hf://org/name/a@b.txt", HubReference("org/name", None, "a@b.txt")),
        ("hf://org/name/100%25", HubReference("org/name", None, "100%25")),
        ("https://huggingface.co/org/name", HubReference("org/name", None, "")),
        ("https://hf.co/org/name/tree/main/sub", HubReference("org/name", "main", "sub")),
        (
            "https://huggingface.co/org/name/resolve/refs%2Fpr%2F3/a%20b.bin?download=true",
            HubReference("org/name", "refs/pr/3", "a b.bin"),
        ),
        (
            "https://huggingface.co/org/name/blob/v1/x.safetensors#L1",
            HubReference("org/name", "v1", "x.safetensors"),
        ),
        ("https://mirror.example/hub/org/name/raw/main/x.json", HubReference("org/name", "main", "x.json")),
    ],
)
def test_what_a_reference_means(monkeypatch, text, expected):
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example/hub/")
    assert hub_reference(text) == expected


@pytest.mark.parametrize(
    "text",
    ["nothing", "./org/name", "../org/name", "/org/name", "~/org/name", "a b/c", "org/name/../x", "a\\b/c",
     "org/name@a..b/../x", "C:\\x\\y", "https://example.com/org/name", "ftp://huggingface.co/org/name", "",
     "datasets/name", "org/-name"],
)  # fmt: skip
def test_what_cannot_be_a_reference(text):
    assert hub_reference(text) is None


@pytest.mark.parametrize(
    "text",
    ["hf://", "hf://org", "hf:///org/name", "hf://org/na me", "hf://org/name@", "hf://org/name@/x",
     "hf://org/name/../../x", "hf://org/name@..%2F..%2Fx", "hf://org/name@%2Fetc", "hf://org/name@a\\b",
     "hf://org/name/a\\b", "hf://org/name/./x", "hf://org/name//x", "hf://datasets/org/name", "hf://org--x/name",
     "hf://org/name.git", "hf://org/name@-x", "hf://org/name/x\ny", "hf://../name", "hf://org/name@a%0Ab",
     "https://huggingface.co/org/name/discussions/3", "https://huggingface.co/org/name/tree/main/%2e%2e/x",
     "https://huggingface.co/datasets/org/name"],
)  # fmt: skip
def test_a_malformed_reference_is_refused(text):
    with pytest.raises(UsageRefusal, match=r"\S") as refused:
        hub_reference(text)
    assert "hf://org/name@revision" in refused.value.way_on


@given(
    st.sampled_from(
        ["", "hf://", "hf://org/name", "org/name@", "https://hf.co/", "https://hf.co/org/name/tree/"]
    ),
    st.text("aA0.-_/@%\\:?#*2eEfF~ \n\0é", max_size=20),
)
def test_no_reference_leads_out_of_its_repository(beginning, rest):
    try:
        found = hub_reference(beginning + rest)
    except UsageRefusal:
        return
    if found is not None:
        parts = [*found.path.split("/"), *(found.revision or "main").split("/"), *found.repository.split("/")]
        assert not {".", ".."} & set(parts)
        assert not found.path.startswith("/")
        assert found.repository.count("/") == 1
        assert "\\" not in "".join(parts)


def test_names_to_push_to():
    refuse_bad_repository("org/name-1.0_b")
    for name in (
        "name",
        "org/",
        "org/a b",
        "org/../x",
        "org/x--y",
        "hf://org/name",
        "org/name/x",
        "-o/x",
        "o/é",
    ):
        with pytest.raises(UsageRefusal, match="is not a name on the Hub"):
            refuse_bad_repository(name)


def test_only_the_wanted_files_of_one_commit(hub, client):
    first = hub.repository("org/name").commit({**ADAPTER, "big.bin": b"x"}, "v1", "refs/pr/3")
    second = hub.repository("org/name").commit({**ADAPTER, CONFIG: b"{}"})
    told = client.run(
        *(
            ("fetch", f"hf://org/name{at}", (CONFIG, WEIGHTS))
            for at in ("@v1", "", f"@{first}", "@refs%2Fpr%2F3")
        )
    )
    assert [found["commit"] for found in told] == [first, second, first, first]
    assert [contents(found, CONFIG)[CONFIG] for found in told] == [
        b'{"r": 2}',
        b"{}",
        b'{"r": 2}',
        b'{"r": 2}',
    ]
    assert all(contents(found, WEIGHTS)[WEIGHTS] == ADAPTER[WEIGHTS] for found in told)
    assert told[0]["files"] == [CONFIG, WEIGHTS, "big.bin"]
    assert not (Path(told[0]["folder"]) / "big.bin").exists()
    # one blob for both commits, and nothing asked twice
    assert len(client.blobs()) == 3
    assert [len(hub.asked("GET", f"/resolve/{first}/{name}")) for name in ADAPTER] == [1, 1]
    assert not hub.asked("GET", f"/resolve/{second}/{WEIGHTS}")


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


def test_a_folder_a_file_and_a_url(hub, client):
    files = {f"deep/er/{name}": content for name, content in ADAPTER.items()}
    hub.repository("org/name").commit({**files, "deeper/x": b"", "README.md": b"#"})
    told = client.run(
        ("fetch", "hf://org/name/deep/er", list(ADAPTER)),
        ("fetch", f"hf://org/name/deep/er/{WEIGHTS}", [WEIGHTS]),
        ("fetch", f"{hub.endpoint}/org/name/resolve/main/deep/er/{WEIGHTS}?download=true", [WEIGHTS]),
        ("fetch", "hf://org/name/deep", [f"er/{CONFIG}"]),
        ("fetch", "hf://org/name/absent", [CONFIG]),
    )
    for found in told[:3]:
        assert found["files"] == [CONFIG, WEIGHTS]
        assert contents(found, WEIGHTS)[WEIGHTS] == ADAPTER[WEIGHTS]
    assert told[3]["files"] == [f"er/{CONFIG}", f"er/{WEIGHTS}"]
    assert told[4] == {"what": "org/name holds no absent", "way_on": "it has README.md, deep, deeper"}


def test_a_token_goes_to_the_hub_and_not_to_its_store(hub, client):
    client.fetch(HF_TOKEN=TOKEN)
    asked = [request for request in hub.requests if "org/name" in request.path]
    assert {request.headers.get("authorization") for request in asked} == {f"Bearer {TOKEN}"}
    stored = [request for request in hub.requests if request.store]
    assert stored
    assert not [request for request in stored if "authorization" in request.headers]


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


listing = partial(Fault, "GET", "/api/models")
BAD_TOKEN = {"X-Error-Message": "Invalid credentials in Authorization header"}
GATED = {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to model org/name is restricted"}


@pytest.mark.parametrize(
    ("fault", "what", "way_on"),
    [
        (Fault("HEAD", CONFIG, status=401, headers=GATED), "org/name is gated", "/org/name, then run hf"),
        (Fault("HEAD", CONFIG, status=403, headers=GATED), "org/name is gated", "accept its licence at http"),
        (listing(status=401), "org/name is not on the Hub, or is private", "hf auth login"),
        (listing(status=404), "org/name is not on the Hub, or is private", "check the name"),
        (listing(status=401, headers=BAD_TOKEN), "does not accept the token", "HF_TOKEN"),
        (listing(status=403, body=TOKEN), "refuses access to org/name", "token"),
        (listing(status=429, headers={"Retry-After": "77"}), "HTTP 429", "wait 77 seconds"),
        (Fault("HEAD", CONFIG, status=429), "HTTP 429", "wait some minutes"),
        (listing(status=500), "the Hub fails with HTTP 500", "again"),
        (Fault("GET", f"/{CONFIG}", status=503), "the Hub fails with HTTP 503", "again"),
        (listing(status=418, body=f'{{"error": "{TOKEN} is tea"}}'), "HTTP 418 for org/name: ... is", "mend"),
        (listing(status=200, body="<html>Log in to the hotel"), "does not answer as the Hub", "portal"),
        (listing(status=200, body='{"id": "x", "sha": "../.."}'), "does not answer as", "HF_ENDPOINT"),
    ],
)  # fmt: skip
def test_the_hubs_faults_say_what_to_do(hub, client, fault, what, way_on):
    hub.faults.append(fault)
    told = client.fetch(HF_TOKEN=TOKEN)
    assert what in told["what"]
    assert way_on in told["way_on"]
    assert not client.blobs()


def test_an_unknown_revision_repository_and_endpoint(hub, client):
    told = client.run(("fetch", "hf://org/name@v9", ()), ("fetch", "hf://org/other", ()))
    assert told[0]["what"] == "org/name has no revision v9"
    assert told[0]["way_on"].endswith("/org/name/tree/main")
    assert told[1]["what"] == "org/other is not on the Hub, or is private"
    told = client.run(("fetch_absent", "hf://org/name@main"))[0]
    assert told == {"what": "org/name@main holds no absent", "way_on": f"it has {CONFIG}, {WEIGHTS}"}
    told = client.fetch(HF_ENDPOINT="nonsense")
    assert told["what"] == "HF_ENDPOINT is nonsense"


def test_a_name_that_leads_out_of_the_cache_is_not_offered(hub, client):
    hub.repository("org/name").commit({**ADAPTER, "../../../out": b"x", "/etc/x": b"x", "a\\b": b"x"})
    assert client.fetch("hf://org/name", *ADAPTER, "../../../out")["files"] == [CONFIG, WEIGHTS]


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


def test_what_is_pushed_comes_back(tmp_path, hub, client):
    folder = tmp_path / "adapter"
    (folder / "sub").mkdir(parents=True)
    files = {**ADAPTER, "README.md": b"---\nlibrary_name: peft\n---\n# An adapter\n", "sub/x.txt": b"x"}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    told = client.run(
        ("push", str(folder), "org/mine"),
        ("push", str(folder / WEIGHTS), "org/single"),
        ("fetch", "hf://org/mine", list(files)),
        HF_TOKEN=TOKEN,
        HF_HUB_DISABLE_XET="1",
    )
    commit = hub.repository("org/mine").references["main"]
    assert told[0] == {"url": f"{hub.endpoint}/org/mine/commit/{commit}"}
    assert len(hub.asked("POST", "/org/mine/commit/")) == 1
    assert contents(told[2], *files) == files
    assert hub.repository("org/single").commits[hub.repository("org/single").references["main"]] == {
        WEIGHTS: ADAPTER[WEIGHTS]
    }


BAD_CARD = '{"errors": [{"message": "bad base_model"}]}'


def test_pushing_again_is_one_more_commit(tmp_path, hub, client):
    for name, content in ADAPTER.items():
        (tmp_path / name).write_bytes(content)
    before = len(hub.repository("org/name").commits)
    (tmp_path / CONFIG).write_bytes(b"{}")
    told = client.run(("push", str(tmp_path), "org/name"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
    assert "/org/name/commit/" in told[0]["url"]
    assert len(hub.repository("org/name").commits) == before + 1


@pytest.mark.parametrize(
    ("fault", "what", "way_on"),
    [
        (None, "you may not write to org/name", "write access"),
        (Fault("POST", "/commit/", status=500), "HTTP 500", "again"),
        (Fault("PUT", "", status=403), "may not write", "write access"),
        (Fault("POST", "/validate-yaml", status=400, body=BAD_CARD), "bad base_model", "mend"),
    ],
)  # fmt: skip
def test_a_push_that_fails_says_how_to_push_again(tmp_path, hub, client, fault, what, way_on):
    hub.may_write = fault is not None
    hub.faults += [fault] if fault else []
    (tmp_path / "a").mkdir()
    for name, content in {**ADAPTER, "README.md": b"---\n---\n"}.items():
        (tmp_path / "a" / name).write_bytes(content)
    told = client.run(("push", str(tmp_path / "a"), "org/name"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")[0]
    assert what in told["what"]
    assert way_on in told["way_on"]
    assert told["way_on"].endswith(f"hf upload org/name {tmp_path / 'a'}")
    assert f"{tmp_path / 'a'} stands complete" in told["what"]


def test_a_push_without_a_token_or_a_network_is_refused_early(client):
    assert "not logged in" in client.run(("refuse_no_token",))[0]["what"]
    assert client.run(("refuse_no_token",), HF_TOKEN=TOKEN) == [{"refused": None}]
    assert "HF_HUB_OFFLINE" in client.run(("refuse_no_token",), HF_TOKEN=TOKEN, HF_HUB_OFFLINE="1")[0]["what"]
