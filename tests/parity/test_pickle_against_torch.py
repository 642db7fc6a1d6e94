"""Files of torch.save: read bit for bit as torch.load reads them, the rest refused by name."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pamctl.adapters.pickle_file import open_pickle
from pamctl.refusal import Refusal

torch = pytest.importorskip("torch")

BITS = {8: torch.int64, 4: torch.int32, 2: torch.int16, 1: torch.uint8}


def random_tensor(dtype: Any, *shape: int) -> Any:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def assert_read_as_torch_reads(file: Path, nested: str | None = None) -> None:
    loaded = torch.load(file, weights_only=True)
    loaded = loaded[nested] if nested else loaded
    opened = open_pickle(file)
    assert list(opened) == list(loaded)
    for name, tensor in loaded.items():
        stored = opened.stored(name)
        assert stored.shape == tuple(tensor.shape)
        bits = tensor.detach().contiguous().view(BITS[tensor.element_size()]).numpy()
        np.testing.assert_array_equal(stored.view(bits.dtype), bits, err_msg=name)
        np.testing.assert_array_equal(opened.read(name), tensor.detach().float().numpy(), err_msg=name)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "bfloat16", "float8_e4m3fn", "float8_e5m2"]
)
def test_every_dtype_is_read_bit_for_bit(dtype: str, tmp_path: Path) -> None:
    kind = getattr(torch, dtype)
    tensors = {"a": random_tensor(kind, 3, 5), "conv": random_tensor(kind, 2, 3, 3, 3)}
    torch.save({**tensors, "alpha": random_tensor(kind)}, tmp_path / "adapter_model.bin")
    assert_read_as_torch_reads(tmp_path / "adapter_model.bin")


def test_parameters_views_and_shared_storages(tmp_path: Path) -> None:
    whole = random_tensor(torch.float32, 6, 4)
    state = {
        "parameter": torch.nn.Parameter(random_tensor(torch.bfloat16, 3, 2)),
        "frozen": torch.nn.Parameter(random_tensor(torch.float16, 2), requires_grad=False),
        "whole": whole,
        "rows 2 and 3": whole[2:4],
        "the same again": whole,
        "one row, odd strides": whole.t()[:, :1].t(),
        "empty": torch.zeros(0, 7),
    }
    torch.save(state, tmp_path / "x.bin")
    assert_read_as_torch_reads(tmp_path / "x.bin")


@pytest.mark.parametrize("wrap", [False, True])
def test_the_state_dict_of_a_module_flat_and_in_a_checkpoint(wrap: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 2)).state_dict()
    torch.save({"state_dict": state, "epoch": 3, "name": "lora"} if wrap else state, tmp_path / "x.ckpt")
    assert_read_as_torch_reads(tmp_path / "x.ckpt", "state_dict" if wrap else None)
    metadata = open_pickle(tmp_path / "x.ckpt").metadata
    assert metadata == ({"epoch": "3", "name": "lora"} if wrap else {})


def test_a_hundred_tensors_need_wide_memo_indices(tmp_path: Path) -> None:
    torch.save({f"layers.{i}": random_tensor(torch.float32, 2, i) for i in range(100)}, tmp_path / "x.pt")
    assert_read_as_torch_reads(tmp_path / "x.pt")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol(protocol: int, tmp_path: Path) -> None:
    tensor = random_tensor(torch.float32, 2, 3)
    torch.save({"t": tensor}, tmp_path / "x.pt", pickle_protocol=protocol)
    np.testing.assert_array_equal(open_pickle(tmp_path / "x.pt").read("t"), tensor.numpy())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: random_tensor(torch.float32, 3, 2).t(), r"t \[2, 3\] is not contiguous"),
        (lambda: random_tensor(torch.float32, 4, 4)[:, :2], r"t \[4, 2\] is not contiguous"),
        (lambda: random_tensor(torch.float32, 1).expand(3), r"t \[3\] is not contiguous"),
        (lambda: torch._neg_view(random_tensor(torch.float32, 3)), "negated"),
        (lambda: random_tensor(torch.float32, 3, 2).to_sparse(), "it would run torch._utils._rebuild_sparse"),
        (lambda: torch.zeros(2, dtype=torch.complex64), "it would run torch.ComplexFloatStorage"),
        (lambda: torch.zeros(2, dtype=torch.uint16), "it would run torch.uint16"),
        (lambda: torch.float32, "it would run torch.float32"),
        (lambda: [torch.zeros(2)], "t is a list, not a tensor"),
        (lambda: {"inner": torch.zeros(2)}, "t is a dict, not a tensor"),
    ],
)
def test_what_is_no_plain_tensor_is_refused_by_name(make: Any, said: str, tmp_path: Path) -> None:
    torch.save({"t": make()}, tmp_path / "x.pt")
    with pytest.raises(Refusal, match=said):
        open_pickle(tmp_path / "x.pt")


def test_files_of_torch_before_1_6_are_refused_with_the_way_on(tmp_path: Path) -> None:
    torch.save({"t": torch.zeros(2)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    with pytest.raises(Refusal, match=r"torch before 1\.6") as refusal:
        open_pickle(tmp_path / "x.pt")
    assert "safetensors" in refusal.value.way_on


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.byteorder", "big")
        torch.save({"t": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(Refusal, match="little-endian"):
        open_pickle(tmp_path / "x.pt")
