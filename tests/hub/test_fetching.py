from pathlib import Path

from tests.hub.hub_client import ADAPTER, CONFIG, TOKEN, WEIGHTS, contents


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


def test_a_name_that_leads_out_of_the_cache_is_not_offered(hub, client):
    hub.repository("org/name").commit({**ADAPTER, "../../../out": b"x", "/etc/x": b"x", "a\\b": b"x"})
    assert client.fetch("hf://org/name", *ADAPTER, "../../../out")["files"] == [CONFIG, WEIGHTS]
