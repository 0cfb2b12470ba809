"""What compiled code depends on besides its source: the CPU, the versions of Numba and llvmlite, this
compiler itself.

All of it goes into cache keys, in every process, so none of it may import Numba or llvmlite (on Linux) or
take long.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import os
import platform
import re
import sys
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# Lines of /proc/cpuinfo that say what code a CPU runs, in their names on x86, ARM, RISC-V and POWER.
_CPU_FIELDS = frozenset(
    ("vendor_id", "cpu family", "model", "flags", "Features", "CPU implementer", "CPU architecture",
     "CPU variant", "CPU part", "isa", "cpu")
)  # fmt: skip
_VERSION = re.compile(r"""version\w*["']?\s*[:=]\s*["'](\d[^"']*)["']""")


def digest(*parts: bytes | str) -> str:
    """A short content hash, hexadecimal. Parts cannot run into each other."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def cpu_identity() -> str:
    """The CPU that code is generated for: `TRACEMILL_CPU`, or what identifies the host's."""
    chosen = os.environ.get("TRACEMILL_CPU")
    if chosen and chosen != "native":
        return f"{platform.machine()} {chosen}"
    return _host_cpu()


@functools.cache
def _host_cpu() -> str:
    try:
        with open("/proc/cpuinfo", "rb") as file:
            # The first CPU is enough; with hundreds of them the whole file would take long.
            first = file.read(8192).partition(b"\n\n")[0].decode("utf-8", "replace")
    except OSError:
        first = ""
    fields = [line.partition(":") for line in first.splitlines()]
    known = {name.strip(): value.strip() for name, _, value in fields if name.strip() in _CPU_FIELDS}
    if known:
        features = digest(*(f"{name}={known[name]}" for name in sorted(known)))[:16]
        model = " ".join(known.get(name, "") for name in ("vendor_id", "cpu family", "model")).split()
        return " ".join([platform.machine(), *model, features])
    import llvmlite.binding as llvm

    features = digest(llvm.get_host_cpu_features().flatten())[:16]
    return f"{platform.machine()} {llvm.get_host_cpu_name()} {features}"


@functools.cache
def package_version(name: str) -> str:
    """The version of an installed package, read from its `_version.py` without importing it."""
    found = importlib.util.find_spec(name)
    try:
        text = (Path(found.origin).parent / "_version.py").read_text() if found and found.origin else ""
    except OSError:
        text = ""
    match = _VERSION.search(text)
    if match:
        return match.group(1)
    from importlib.metadata import version

    return version(name)


def toolchain() -> dict[str, str]:
    """The key parts that say by what and for what code is generated."""
    return {
        "cpu": cpu_identity(),
        "numba": package_version("numba"),
        "llvmlite": package_version("llvmlite"),
        "python": f"{sys.version_info[0]}.{sys.version_info[1]}",
    }


def _source_files() -> list[os.DirEntry[str]]:
    """The files that decide what is generated, in a fixed order."""
    found: list[os.DirEntry[str]] = []
    pending = [_source_root(part) for part in ("ir", "compiler", "runtime")]
    while pending:
        with os.scandir(pending.pop()) as entries:
            for entry in entries:
                if entry.name.endswith((".py", ".lark")):
                    found.append(entry)
                elif entry.is_dir() and not entry.name.startswith(("_", ".")):
                    pending.append(entry.path)
    return sorted(found, key=lambda entry: entry.path)


def _source_root(part: str) -> str:
    """The folder of a subpackage; an editable install maps them to places side by side, as an ordinary one
    does.
    """
    return str(_PACKAGE.parent / part)


@functools.cache
def compiler_digest(memo: Path | None = None) -> str:
    """A hash of the contents of the compiler's own source files.

    Args:
        memo: a folder to remember the answer in, under the files' sizes and times: then later processes look
        at the
            folders only (1 ms) and do not read the files (6 ms).
    """
    try:
        files = _source_files()
        stats = [entry.stat() for entry in files]
    except OSError:  # an unusual installation, such as a zip file
        from importlib.metadata import version

        return digest(version("tracemill"))
    seen = digest(*(f"{e.path}:{s.st_size}:{s.st_mtime_ns}" for e, s in zip(files, stats, strict=True)))
    note = memo / "compiler-digest" if memo else None
    if note is not None:
        try:
            known, _, answer = note.read_text().strip().partition(" ")
            if known == seen and len(answer) == 32:
                return answer
        except (OSError, ValueError):
            pass
    root = str(_PACKAGE.parent)
    answer = digest(*(x for e in files for x in (os.path.relpath(e.path, root), Path(e.path).read_bytes())))
    if note is not None:
        _remember(note, f"{seen} {answer}\n")
    return answer


def _remember(note: Path, text: str) -> None:
    temporary = note.with_name(f".{note.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text)
        os.replace(temporary, note)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
