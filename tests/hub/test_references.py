import pytest
from hypothesis import given
from hypothesis import strategies as st

from pamctl.hub import HubReference, hub_reference
from pamctl.refusal import UsageRefusal


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
