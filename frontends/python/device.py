"""Devices as scripts name them. Only the CPU exists here."""

from __future__ import annotations

from typing import Any

from ...ir.errors import NotSupportedError


class Device:
    """`tm.device("cpu")`: type and index."""

    __slots__ = ("index", "type")

    type: str
    index: int | None

    def __init__(self, type: Any = "cpu", index: int | None = None) -> None:
        if isinstance(type, Device):
            type, index = type.type, type.index
        name = str(type)
        if ":" in name:
            name, _, number = name.partition(":")
            index = int(number)
        if name not in ("cpu", "cuda", "mps", "xpu", "meta", "null"):
            raise RuntimeError(f"Expected one of cpu, cuda, mps, xpu device type at start of device string: {type}")
        self.type, self.index = name, index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and self.type == other.type and self.index == other.index

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return f"device(type='{self.type}'" + (f", index={self.index})" if self.index is not None else ")")

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"

    def __enter__(self) -> Device:
        check(self)
        return self

    def __exit__(self, *exc: object) -> None:
        return None


cpu = Device("cpu")


def no_cuda() -> NotSupportedError:
    """The error for whatever needs a CUDA device."""
    return NotSupportedError("tracemill has no CUDA device here",
                             hint="guard such code by tm.cuda.is_available(), or leave it out")


def check(where: Any) -> None:
    """Raises NotSupportedError unless `where` (a device, its name, an index or None) is the CPU."""
    if where is None or where is cpu:
        return
    d = where if isinstance(where, Device) else Device("cuda", where) if isinstance(where, int) else Device(where)
    if d.type != "cpu":
        raise NotSupportedError(f"tracemill has no device {d} here",
                                hint='use device="cpu", or "cuda" if tm.cuda.is_available() else "cpu"')
