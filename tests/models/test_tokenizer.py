"""Prompts and answers to ids and back."""

import pytest
import tokenizers

from pamctl.models.tokenizer import Tokenizer
from pamctl.refusal import Refusal


@pytest.fixture
def tokenizer(checkpoint) -> Tokenizer:
    return Tokenizer(checkpoint / "tokenizer.json", 40)


def test_prefix_has_bos_and_newline_and_suffix_has_eos(tokenizer):
    assert tokenizer.encode_prefix("a b") == [2, 6, 7, 5]
    assert tokenizer.encode_prefix("") == [2, 5]
    assert tokenizer.encode_suffix("c") == [8, 1]
    assert tokenizer.encode_suffix("") == [1]


def test_decode_stops_at_eos_and_drops_special_tokens(tokenizer):
    assert tokenizer.decode([6, 0, 7, 1, 8]) == "a b"
    assert tokenizer.decode([1, 6]) == ""


def test_a_prefix_with_the_image_token_is_refused(tokenizer):
    with pytest.raises(Refusal, match="holds <image>"):
        tokenizer.encode_prefix("<image> a")


def test_missing_and_broken_files_are_refused(tmp_path):
    with pytest.raises(Refusal, match=r"no tokenizer\.json"):
        Tokenizer(tmp_path / "tokenizer.json", 40)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(Refusal, match="cannot be read by tokenizers"):
        Tokenizer(tmp_path / "tokenizer.json", 40)


def test_another_models_tokenizer_is_refused(tmp_path, checkpoint):
    with pytest.raises(Refusal, match="token id 13, the model's embedding 13 rows"):
        Tokenizer(checkpoint / "tokenizer.json", 13)
    tokenizers.Tokenizer(tokenizers.models.WordLevel({"a": 0, "<eos>": 1, "<pad>": 2})).save(
        str(tmp_path / "tokenizer.json")
    )
    with pytest.raises(Refusal, match="no token <bos>"):
        Tokenizer(tmp_path / "tokenizer.json", 40)
