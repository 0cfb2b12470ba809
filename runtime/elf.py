"""A small reader of relocatable ELF64 objects: sections, symbols, relocations. Enough to check and load
kernels.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

EM_X86_64, EM_AARCH64 = 62, 183
SHT_SYMTAB, SHT_RELA, SHT_NOBITS = 2, 4, 8
SHF_WRITE, SHF_ALLOC, SHF_EXECINSTR = 1, 2, 4
SHN_UNDEF, SHN_ABS, SHN_COMMON = 0, 0xFFF1, 0xFFF2
STB_LOCAL = 0


class ElfError(ValueError):
    """The bytes are not an object that this reader understands."""


class Section(NamedTuple):
    """One section; `data` is empty for sections without content in the file."""

    name: str
    kind: int
    flags: int
    size: int
    alignment: int
    info: int
    data: bytes


class Symbol(NamedTuple):
    """One symbol; `section` is an index into the object's sections or one of the SHN constants."""

    name: str
    binding: int
    section: int
    value: int


class Relocation(NamedTuple):
    """Patch `section` at `offset` with a value made of symbol number `symbol` and `addend`."""

    section: int
    offset: int
    kind: int
    symbol: int
    addend: int


class Object(NamedTuple):
    """A relocatable object."""

    machine: int
    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...]
    relocations: tuple[Relocation, ...]

    def undefined(self) -> list[str]:
        """Names of the symbols that must come from outside."""
        return [symbol.name for symbol in self.symbols if symbol.section == SHN_UNDEF and symbol.name]

    def defined(self) -> list[str]:
        """Names of the global symbols that the object defines."""
        return [
            symbol.name
            for symbol in self.symbols
            if symbol.binding != STB_LOCAL and symbol.section not in (SHN_UNDEF, SHN_COMMON)
        ]


def _text(table: bytes, at: int) -> str:
    end = table.find(b"\0", at)
    if not 0 <= at <= end:
        raise ElfError("a name lies outside its string table")
    return table[at:end].decode("utf-8", "replace")


def read(data: bytes) -> Object:
    """Parse an object.

    Raises:
        ElfError: not a little-endian relocatable ELF64, or damaged.
    """
    try:
        return _read(data)
    except (struct.error, IndexError, ValueError) as error:
        if isinstance(error, ElfError):
            raise
        raise ElfError(f"damaged object: {error}") from error


def _read(data: bytes) -> Object:
    if data[:6] != b"\x7fELF\x02\x01":
        raise ElfError("not a little-endian 64-bit ELF file")
    kind, machine = struct.unpack_from("<HH", data, 16)
    if kind != 1:
        raise ElfError("not a relocatable object")
    (table,) = struct.unpack_from("<Q", data, 40)
    entry_size, count, names_at = struct.unpack_from("<HHH", data, 58)
    if entry_size != 64 or names_at >= count:
        raise ElfError("unusual section table")
    headers = [struct.unpack_from("<IIQQQQIIQQ", data, table + 64 * i) for i in range(count)]

    def content(header: tuple[int, ...]) -> bytes:
        start, size = header[4], header[5]
        if header[1] == SHT_NOBITS:
            return b""
        if start + size > len(data):
            raise ElfError("a section lies outside the file")
        return data[start : start + size]

    names = content(headers[names_at])
    sections = tuple(
        Section(_text(names, h[0]), h[1], h[2], h[5], max(h[8], 1), h[7], content(h) if i else b"")
        for i, h in enumerate(headers)
    )
    symbols: list[Symbol] = []
    relocations: list[Relocation] = []
    for header, section in zip(headers, sections, strict=True):
        if section.kind == SHT_SYMTAB:
            strings = content(headers[header[6]])
            for name, info, _, where, value, _ in struct.iter_unpack("<IBBHQQ", section.data):
                symbols.append(Symbol(_text(strings, name), info >> 4, where, value))
        elif section.kind == SHT_RELA:
            for offset, info, addend in struct.iter_unpack("<QQq", section.data):
                relocations.append(Relocation(section.info, offset, info & 0xFFFFFFFF, info >> 32, addend))
    for relocation in relocations:
        if relocation.section >= count or relocation.symbol >= len(symbols):
            raise ElfError("a relocation points outside the object")
    return Object(machine, sections, tuple(symbols), tuple(relocations))
