"""Object code → callable addresses, without a compiler in the process.

On Linux x86-64 a small linker of our own maps the object: a kernel is code and constants with relative
references between them, so loading is a copy and a few additions (less than 0.1 ms), and libllvm (35 ms to
import, 40 MB resident) stays out of a warm process. On other platforms, and for objects with anything unusual
in them, llvmlite links.

Loaded code is never unloaded: addresses stay valid as long as the process lives. Equal bytes are loaded once.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import mmap
import platform
import struct
import sys
import threading
from typing import Any

from ..ir.errors import InternalError
from . import blas, elf

R_X86_64_64, R_X86_64_PC32, R_X86_64_PLT32, R_X86_64_GOTPCREL, R_X86_64_PC64 = 1, 2, 4, 9, 24
R_X86_64_GOTPCRELX, R_X86_64_REX_GOTPCRELX = 41, 42
_GOT_RELATIVE = (R_X86_64_GOTPCREL, R_X86_64_GOTPCRELX, R_X86_64_REX_GOTPCRELX)
_JUMP = b"\xff\x25\x00\x00\x00\x00"  # jmp *0(%rip), followed by the 8-byte address

_lock = threading.Lock()
_addresses: dict[tuple[bytes, str], int] = {}


class _Unusual(Exception):
    """Our linker leaves this object to llvmlite."""


def load_object(data: bytes, symbol: str) -> int:
    """The address of `symbol` in an object, mapped on first use and for good.

    Args:
        data: a relocatable ELF64 object; the cache has verified its checksum.
        symbol: an exported function.

    Raises:
        InternalError: the object is damaged, is for another machine, lacks the symbol, or needs one that the
        process
            does not have.
    """
    key = (hashlib.blake2b(data, digest_size=16).digest(), symbol)
    with _lock:
        address = _addresses.get(key)
        if address is None:
            address = _addresses[key] = _load(data, symbol)
        return address


def _keep_forever(thing: Any) -> None:
    """Not even the end of the interpreter frees it: a daemon thread may be in the middle of a kernel then."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(thing))


def _load(data: bytes, symbol: str) -> int:
    try:
        parsed = elf.read(data)
    except elf.ElfError as error:
        raise InternalError(f"cannot load kernel {symbol}: {error}") from error
    if parsed.machine != _machine():
        raise InternalError(f"cannot load kernel {symbol}: it was compiled for another architecture")
    if symbol not in parsed.defined():
        raise InternalError(f"cannot load kernel {symbol}: the object does not define it")
    externals = {name: _external(name, symbol) for name in parsed.undefined()}
    if sys.platform == "linux" and parsed.machine == elf.EM_X86_64:
        try:
            return _Linker(parsed, externals).link(symbol)
        except _Unusual:
            pass
    return _load_with_llvm(data, symbol)


def _machine() -> int:
    return elf.EM_AARCH64 if platform.machine().lower() in ("aarch64", "arm64") else elf.EM_X86_64


@functools.cache
def _process() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _external(name: str, symbol: str) -> int:
    """The address of a C function of the process (the C library is always there), or of the BLAS."""
    if name == "_GLOBAL_OFFSET_TABLE_":
        return 0
    if name in blas.SYMBOLS:
        return blas.address(name)
    try:
        address = ctypes.cast(getattr(_process(), name), ctypes.c_void_p).value
    except AttributeError:
        address = None
    if not address:
        raise InternalError(f"cannot load kernel {symbol}: the process has no symbol {name}")
    return address


class _Linker:
    """Lays an object's sections out in one block, applies the relocations, maps the block read-only
    executable.
    """

    def __init__(self, parsed: elf.Object, externals: dict[str, int]) -> None:
        self.object = parsed
        self.externals = externals
        self.places: dict[int, int] = {}
        self.slots: dict[str, int] = {}
        self.stubs: dict[str, int] = {}
        end = 0
        for index, section in enumerate(parsed.sections):
            if section.flags & elf.SHF_ALLOC and section.size:
                if section.flags & elf.SHF_WRITE or section.kind == elf.SHT_NOBITS:
                    raise _Unusual("writable data")
                end = -(-end // section.alignment) * section.alignment
                self.places[index] = end
                end += section.size
        if any(symbol.section == elf.SHN_COMMON for symbol in parsed.symbols):
            raise _Unusual("common data")
        end = -(-end // 8) * 8
        for name in externals:  # an address word for indirect references, a jump for calls
            self.slots[name], self.stubs[name] = end, end + 8
            end += 8 + 16
        self.size = -(-end // mmap.PAGESIZE) * mmap.PAGESIZE

    def link(self, symbol: str) -> int:
        block = mmap.mmap(-1, self.size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        view = ctypes.c_char.from_buffer(block)
        base = ctypes.addressof(view)
        for index, place in self.places.items():
            data = self.object.sections[index].data
            block[place : place + len(data)] = data
        for name, address in self.externals.items():
            struct.pack_into("<Q", block, self.slots[name], address)
            block[self.stubs[name] : self.stubs[name] + 14] = _JUMP + struct.pack("<Q", address)
        for relocation in self.object.relocations:
            if relocation.section in self.places:
                self._apply(block, base, relocation)
        protect = _process().mprotect
        protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
        if protect(base, self.size, mmap.PROT_READ | mmap.PROT_EXEC) != 0:
            raise InternalError(f"this system does not allow executable memory (errno {ctypes.get_errno()})")
        _keep_forever(view)  # which holds the block
        return base + self._offset(next(s for s in self.object.symbols if s.name == symbol))

    def _offset(self, symbol: elf.Symbol) -> int:
        place = self.places.get(symbol.section)
        if place is None:
            raise _Unusual(f"symbol {symbol.name} in an unmapped section")
        return place + symbol.value

    def _apply(self, block: mmap.mmap, base: int, relocation: elf.Relocation) -> None:
        at = self.places[relocation.section] + relocation.offset
        symbol = self.object.symbols[relocation.symbol]
        outside = symbol.section == elf.SHN_UNDEF
        kind, addend = relocation.kind, relocation.addend
        if kind == R_X86_64_64:
            target = self.externals[symbol.name] if outside else base + self._offset(symbol)
            struct.pack_into("<Q", block, at, (target + addend) & 0xFFFFFFFFFFFFFFFF)
            return
        if kind in _GOT_RELATIVE and outside:
            target = self.slots[symbol.name]
        elif kind in (R_X86_64_PC32, R_X86_64_PC64, R_X86_64_PLT32):
            target = self.stubs[symbol.name] if outside else self._offset(symbol)
        else:
            raise _Unusual(f"relocation {kind}")
        if at + (8 if kind == R_X86_64_PC64 else 4) > self.size:
            raise InternalError("a relocation points outside its section")
        struct.pack_into("<q" if kind == R_X86_64_PC64 else "<i", block, at, target + addend - at)


def _load_with_llvm(data: bytes, symbol: str) -> int:
    """Link with llvmlite's JIT. Undefined symbols have been looked up: MCJIT would end the process on a
    missing one.
    """
    import llvmlite.binding as llvm

    engine = _llvm_engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(data))
    engine.finalize_object()
    address = int(engine.get_function_address(symbol))
    if not address:
        raise InternalError(f"cannot load kernel {symbol}: LLVM did not link it")
    return address


@functools.cache
def _llvm_engine() -> Any:
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple()
    if sys.platform in ("win32", "darwin"):
        triple += "-elf"
    machine = llvm.Target.from_triple(triple).create_target_machine(jit=True)
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    _keep_forever(engine)
    return engine
