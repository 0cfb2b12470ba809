"""Named arrays in safetensors files: our writer against the package's reader, damaged files."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors import safe_open
from tracemill.ir.arrays import header, read_arrays, write_arrays
from tracemill.ir.errors import CheckpointError

ARRAYS = {
    "weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2], ml_dtypes.bfloat16),
    "scalar": np.array(7, np.int64),
    "empty": np.zeros((0, 3), np.float64),
    "flag": np.array([True, False, True]),
    "byte": np.array([255], np.uint8),
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_arrays(file, ARRAYS, {"note": "äöü"})
    found = read_arrays(file)
    assert set(found) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()
    assert header(file)["__metadata__"] == {"note": "äöü"}


def test_the_package_reads_it(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    arrays = {k: v for k, v in ARRAYS.items() if k != "half"}
    write_arrays(file, arrays)
    with safe_open(file, "numpy") as f:
        assert sorted(f.keys()) == sorted(arrays)
        for name in arrays:
            np.testing.assert_array_equal(f.get_tensor(name), arrays[name])


def test_tensors_lie_at_multiples_of_their_element_size(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_arrays(file, ARRAYS)
    described = header(file)
    length = 8 + int.from_bytes(file.read_bytes()[:8], "little")
    for name, array in ARRAYS.items():
        assert (length + described[name]["data_offsets"][0]) % array.dtype.itemsize == 0


@pytest.mark.parametrize("damage", ["missing", "empty", "short", "foreign", "header", "dtype"])
def test_unfit_files_are_refused(tmp_path: Path, damage: str) -> None:
    file = tmp_path / "a.safetensors"
    if damage != "missing":
        write_arrays(file, {"w": np.zeros(4, np.float32)})
        data = file.read_bytes()
        file.write_bytes({"empty": b"", "short": data[:-3], "foreign": b"PK\x03\x04" + data,
                          "header": data.replace(b'"shape":[4]', b'"shape":[5]'),
                          "dtype": data.replace(b'"F32"', b'"C64"')}[damage])
    with pytest.raises(CheckpointError, match=r"a\.safetensors"):
        read_arrays(file)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_arrays(file, {"w": np.ones(2)})
    before = file.read_bytes()
    with pytest.raises(KeyError):
        write_arrays(file, {"w": np.ones(2, np.complex64)})
    assert file.read_bytes() == before
    assert list(tmp_path.iterdir()) == [file]
