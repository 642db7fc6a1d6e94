import pytest

from pamctl.hub import refuse_bad_repository
from pamctl.refusal import UsageRefusal
from tests.hub.hub_client import ADAPTER, CONFIG, TOKEN, WEIGHTS, contents
from tests.hub_server import Fault

BAD_CARD = '{"errors": [{"message": "bad base_model"}]}'


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


def test_pushing_again_is_one_more_commit(tmp_path, hub, client):
    for name, content in ADAPTER.items():
        (tmp_path / name).write_bytes(content)
    before = len(hub.repository("org/name").commits)
    (tmp_path / CONFIG).write_bytes(b"{}")
    told = client.run(("push", str(tmp_path), "org/name"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
    assert "/org/name/commit/" in told[0]["url"]
    assert len(hub.repository("org/name").commits) == before + 1


def test_what_is_replaced_goes_in_the_same_commit(tmp_path, hub, client):
    before = hub.repository("org/name").commit(
        {"old.bin": b"1", "old/x": b"2", "old.txt": b"3", "mine": b"4"}
    )
    (tmp_path / "old.txt").write_bytes(b"new")
    client.run(("push", str(tmp_path), "org/name"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")
    commits = hub.repository("org/name").commits
    assert list(commits).index(before) == len(commits) - 2
    assert commits[hub.repository("org/name").references["main"]] == {"mine": b"4", "old.txt": b"new"}


def test_a_repository_that_cannot_take_it_is_left_as_it_is(tmp_path, hub, client):
    before = hub.repository("org/name").commit({"refused": b""})
    (tmp_path / "x").write_bytes(b"x")
    told = client.run(("push", str(tmp_path), "org/name"), HF_TOKEN=TOKEN, HF_HUB_DISABLE_XET="1")[0]
    assert told["what"] == f"it holds refused; {tmp_path} stands complete"
    assert told["way_on"] == f"take it away; then run hf upload org/name {tmp_path}"
    assert hub.repository("org/name").references["main"] == before


def test_a_store_that_the_hub_does_not_offer_is_told(tmp_path, hub, client):
    pytest.importorskip("hf_xet")
    (tmp_path / WEIGHTS).write_bytes(ADAPTER[WEIGHTS])
    told = client.run(("push", str(tmp_path), "org/name"), HF_TOKEN=TOKEN)[0]
    assert hub.asked("GET", "/org/name/xet-write-token/main")
    assert "404" in told["what"]


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
