from functools import partial

import pytest

from tests.hub.hub_client import CONFIG, TOKEN, WEIGHTS
from tests.hub_server import Fault

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
    told = client.run(
        ("fetch", "hf://org/name@v9", ()),
        ("fetch", "hf://org/name@feat/x", ()),
        ("fetch", "hf://org/other", ()),
    )
    assert told[0]["what"] == "org/name has no revision v9"
    assert told[0]["way_on"] == f"see its branches and tags at {hub.endpoint}/org/name/tree/main"
    assert told[1]["what"] == "org/name has no revision feat"
    assert told[1]["way_on"].startswith("write %2F for a / that belongs to the revision, or see its branches")
    assert told[2]["what"] == "org/other is not on the Hub, or is private"
    told = client.run(("fetch_absent", "hf://org/name@main"))[0]
    assert told == {"what": "org/name@main holds no absent", "way_on": f"it has {CONFIG}, {WEIGHTS}"}
    told = client.fetch(HF_ENDPOINT="nonsense")
    assert told["what"] == "HF_ENDPOINT is nonsense"
