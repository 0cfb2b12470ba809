"""The on-disk store of kernels and plans.

One folder, two kinds of records: `kernels/<key>.o` and `plans/<key>.plan`, each with a readable text beside
it, `<key>.py` or `<key>.ir`. A record is its payload (so that `objdump` reads a kernel), a JSON text of the
parts of its key, and a trailer with a magic number, a format version, lengths and a checksum: whatever is
truncated, damaged or foreign is removed and made again, never used. Records are written under a temporary
name and renamed, so that any number of processes may share the folder.

Importing this module imports the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import stat
import struct
import threading
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ..ir.errors import CacheError, TracemillError
from .fingerprint import compiler_digest, digest, toolchain

__all__ = [
    "CacheInfo", "CacheWarning", "Counters", "DiskCache", "Explanation", "Kind", "Record", "cache_key",
    "compiler_digest", "default_cache", "default_root", "digest", "size_limit", "toolchain",
]  # fmt: skip

Kind = Literal["kernel", "plan"]

FORMAT = 1
_MAGIC = b"tracemil"
# magic, format, kind, lengths of payload and description, checksum of all that comes before it
_TRAILER = struct.Struct("<8sHHQI16s")


class _Layout(NamedTuple):
    """Where a kind of record lies: folder, suffix of records and of the readable texts beside them, mark."""

    folder: str
    suffix: str
    text: str
    mark: int


_KINDS: dict[Kind, _Layout] = {
    "kernel": _Layout("kernels", ".o", ".py", 1),
    "plan": _Layout("plans", ".plan", ".ir", 2),
}
_BLOCK = 4096  # what a small file takes on a disk
_KEEP = 0.75  # an eviction goes down to this share of the limit, so that the next one is far away
_TOUCH_AFTER = 3600.0
_STALE_AFTER = 3600.0
DEFAULT_SIZE = 512 << 20


class CacheWarning(RuntimeWarning):
    """The cache cannot be written; the program runs without it."""


class Record(NamedTuple):
    """What the store holds under a key: opaque bytes and the parts of the key."""

    payload: bytes
    parts: dict[str, str]


@dataclass
class Counters:
    """What happened to one kind of record in this process."""

    hits: int = 0
    misses: int = 0
    compiled: int = 0
    loaded: int = 0
    evicted: int = 0
    corrupt: int = 0

    def as_dict(self) -> dict[str, int]:
        """For `tm.stats()`."""
        return asdict(self)


class CacheInfo(NamedTuple):
    """What `tracemill cache info` prints; sizes in bytes on disk."""

    root: Path
    kernels: int
    plans: int
    size: int
    limit: int
    writable: bool


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a key was not found: how the nearest record's key differs.

    Attributes:
        nearest: the nearest record's key, None if there are no records.
        same: the key parts that agree.
        changed: the parts that differ, as (of the record, wanted); None where a side lacks the part.
    """

    nearest: str | None
    same: tuple[str, ...] = ()
    changed: dict[str, tuple[str | None, str | None]] = field(default_factory=dict)

    def __str__(self) -> str:
        if self.nearest is None:
            return "the cache holds no record of this kind"
        lines = [f"nearest record {self.nearest}: same {', '.join(self.same) or 'in nothing'}"]
        lines += [f"  {name}: {_short(old)} -> {_short(new)}" for name, (old, new) in self.changed.items()]
        return "\n".join(lines)


def _short(text: str | None) -> str:
    if text is None:
        return "(absent)"
    return text if len(text) <= 80 else text[:77] + "..."


def cache_key(parts: Mapping[str, str]) -> str:
    """The key of a record: a hash of the names and values of its parts, whatever their order."""
    return digest(*(x for name in sorted(parts) for x in (name, parts[name])))


def default_root() -> Path:
    """`TRACEMILL_CACHE_DIR`, or the platform's cache folder for the user."""
    chosen = os.environ.get("TRACEMILL_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser().absolute()
    if platform.system() == "Linux":  # what platformdirs answers, without importing it
        base = os.environ.get("XDG_CACHE_HOME", "").strip() or os.path.expanduser("~/.cache")
        return Path(base, "tracemill")
    from platformdirs import user_cache_dir

    return Path(user_cache_dir("tracemill", appauthor=False))


def size_limit() -> int:
    """`TRACEMILL_CACHE_SIZE` in bytes: megabytes, or a number with K, M or G.

    Raises:
        TracemillError: not a size.
    """
    text = os.environ.get("TRACEMILL_CACHE_SIZE", "").strip()
    if not text:
        return DEFAULT_SIZE
    unit = {"k": 10, "m": 20, "g": 30}.get(text[-1].lower())
    try:
        value = float(text if unit is None else text[:-1])
        return max(0, int(value * (1 << (20 if unit is None else unit))))
    except (ValueError, OverflowError):
        raise TracemillError(
            f"TRACEMILL_CACHE_SIZE={text!r} is not a size", hint="a number of megabytes, or 300K, 200M, 2G"
        ) from None


class DiskCache:
    """The store in one folder. Safe to share between threads and processes.

    A folder that cannot be written (read-only, disk full) is used for reading, with one warning; a folder
    that is missing is created with mode 0700.

    Args:
        root: the folder; by default `TRACEMILL_CACHE_DIR` or the platform's.
        limit: bytes on disk above which the least recently used records go; by default
        `TRACEMILL_CACHE_SIZE`.

    Raises:
        CacheError: another user owns the folder or may write to it.
    """

    def __init__(self, root: Path | str | None = None, limit: int | None = None) -> None:
        self.root = Path(root) if root is not None else default_root()
        self.limit = size_limit() if limit is None else limit
        self.counters: dict[Kind, Counters] = {"kernel": Counters(), "plan": Counters()}
        self._writable = True
        self._lock = threading.Lock()
        try:
            self._prepare()
        except OSError as error:
            self._give_up(error)

    def _prepare(self) -> None:
        with contextlib.suppress(FileExistsError):
            self.root.mkdir(mode=0o700, parents=True)
        found = os.stat(self.root)
        if not stat.S_ISDIR(found.st_mode):
            raise CacheError(f"the cache folder {self.root} is not a folder", hint=_ELSEWHERE)
        if hasattr(os, "getuid"):
            if found.st_uid != os.getuid():
                raise CacheError(
                    f"the cache folder {self.root} belongs to another user (uid {found.st_uid}), "
                    "who could put code into it that this process would run",
                    hint=_ELSEWHERE,
                )
            if found.st_mode & 0o022:
                raise CacheError(
                    f"the cache folder {self.root} can be written by other users "
                    f"(mode {found.st_mode & 0o777:o}), who could put code into it that this process runs",
                    hint=f"chmod go-w {self.root}",
                )
        for layout in _KINDS.values():
            (self.root / layout.folder).mkdir(mode=0o700, exist_ok=True)

    def _give_up(self, error: OSError) -> None:
        """Stop writing, and say so once."""
        with self._lock:
            first, self._writable = self._writable, False
        if first:
            reason = error.strerror or str(error)
            warnings.warn(
                f"the cache folder {self.root} cannot be written ({reason}): compiled code will not be kept. "
                f"{_ELSEWHERE}",
                CacheWarning,
                stacklevel=4,
            )

    def path(self, kind: Kind, key: str) -> Path:
        """Where a record lies, or would lie."""
        return self.root / _KINDS[kind].folder / (key + _KINDS[kind].suffix)

    def text_path(self, kind: Kind, key: str) -> Path:
        """Where the readable text of a record lies: a kernel's Python, a plan's IR."""
        return self.root / _KINDS[kind].folder / (key + _KINDS[kind].text)

    def get(self, kind: Kind, key: str) -> Record | None:
        """The record, or None if there is none that can be trusted (a damaged one is removed)."""
        counters = self.counters[kind]
        path = self.path(kind, key)
        try:
            with open(path, "rb") as file:
                data = file.read()
                changed = os.fstat(file.fileno()).st_mtime
        except OSError:
            counters.misses += 1
            return None
        record = _unpack(kind, data)
        if record is None:
            counters.corrupt += 1
            counters.misses += 1
            self._remove(kind, path)
            return None
        counters.hits += 1
        if self._writable and time.time() - changed > _TOUCH_AFTER:  # keep it from being evicted
            with contextlib.suppress(OSError):
                os.utime(path)
        return record

    def put(
        self, kind: Kind, key: str, payload: bytes, parts: Mapping[str, str], source: str | None = None
    ) -> bool:
        """Store a record, with a readable text beside it; whether it was written."""
        if not self._writable or self.limit == 0:
            return False
        path = self.path(kind, key)
        data = _pack(kind, payload, parts)
        written = _on_disk(len(data))
        try:
            if source is not None:
                text = source.encode()
                _write(self.text_path(kind, key), text)
                written += _on_disk(len(text))
            _write(path, data)
            self._account(written)
        except FileNotFoundError:  # the folders were removed meanwhile
            try:
                self._prepare()
            except OSError as error:
                self._give_up(error)
            return False
        except OSError as error:
            self._give_up(error)
            return False
        return True

    def discard(self, kind: Kind, key: str) -> None:
        """Remove a record whose payload proved useless."""
        self.counters[kind].corrupt += 1
        self._remove(kind, self.path(kind, key))

    def _remove(self, kind: Kind, path: Path) -> None:
        for each in (path, path.with_suffix(_KINDS[kind].text)):
            with contextlib.suppress(OSError):
                each.unlink(missing_ok=True)

    # -- size ------------------------------------------------------------------------------------------------

    def _account(self, written: int) -> None:
        """Note what was written; evict once notes say that the limit may be reached.

        The notes are the length of a file: one byte for each block written since the last eviction, appended,
        which is atomic between processes and costs one system call.
        """
        note = os.open(self.root / "written", os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(note, b"." * (written // _BLOCK))
            total = os.fstat(note).st_size * _BLOCK
        finally:
            os.close(note)
        if total > self.limit:
            self.evict()

    def evict(self) -> int:
        """Remove the least recently used records if the store is above its limit; how many went."""
        now = time.time()
        records: list[tuple[float, int, Kind, Path]] = []
        for kind, entry in self._entries():
            try:
                found = entry.stat()
            except OSError:
                continue
            path = Path(entry.path)
            if entry.name.endswith(".tmp"):
                if now - found.st_mtime > _STALE_AFTER:  # a process died while writing
                    path.unlink(missing_ok=True)
            elif entry.name.endswith(_KINDS[kind].text):
                orphan = not path.with_suffix(_KINDS[kind].suffix).exists()
                if orphan and now - found.st_mtime > _STALE_AFTER:
                    path.unlink(missing_ok=True)
            elif entry.name.endswith(_KINDS[kind].suffix):
                size = _on_disk(found.st_size)
                with contextlib.suppress(OSError):
                    size += _on_disk(path.with_suffix(_KINDS[kind].text).stat().st_size)
                records.append((found.st_mtime, size, kind, path))
        total = sum(size for _, size, _, _ in records)
        evicted = 0
        if total > self.limit:
            for _, size, kind, path in sorted(records, key=lambda record: (record[0], record[3])):
                if total <= self.limit * _KEEP:
                    break
                self._remove(kind, path)
                self.counters[kind].evicted += 1
                total -= size
                evicted += 1
        _write(self.root / "written", b"." * (total // _BLOCK))
        return evicted

    def _entries(self) -> Iterator[tuple[Kind, os.DirEntry[str]]]:
        for kind, layout in _KINDS.items():
            try:
                with os.scandir(self.root / layout.folder) as entries:
                    for entry in entries:
                        yield kind, entry
            except OSError:
                continue

    def info(self) -> CacheInfo:
        """Number of records and bytes on disk."""
        count = {"kernel": 0, "plan": 0}
        size = 0
        for kind, entry in self._entries():
            try:
                size += _on_disk(entry.stat().st_size)
            except OSError:
                continue
            count[kind] += entry.name.endswith(_KINDS[kind].suffix)
        return CacheInfo(self.root, count["kernel"], count["plan"], size, self.limit, self._writable)

    def clear(self) -> int:
        """Remove everything the store wrote (and nothing else); how many records went."""
        removed = 0
        for kind, entry in list(self._entries()):
            if entry.name.endswith((_KINDS[kind].suffix, _KINDS[kind].text, ".tmp")):
                Path(entry.path).unlink(missing_ok=True)
                removed += entry.name.endswith(_KINDS[kind].suffix)
        for name in ("written", "compiler-digest"):
            (self.root / name).unlink(missing_ok=True)
        return removed

    # -- explanations ----------------------------------------------------------------------------------------

    def explain(self, kind: Kind, parts: Mapping[str, str], search: int = 2000) -> Explanation:
        """Why no record has this key: how the nearest of the `search` newest ones differs."""
        suffix = _KINDS[kind].suffix
        found: list[tuple[float, Path]] = []
        for its_kind, entry in self._entries():
            if its_kind == kind and entry.name.endswith(suffix):
                try:
                    found.append((entry.stat().st_mtime, Path(entry.path)))
                except OSError:
                    continue
        best: tuple[int, float, str, dict[str, str]] | None = None
        for changed, path in sorted(found, reverse=True)[:search]:
            theirs = _read_parts(kind, path)
            if theirs is not None:
                same = sum(theirs.get(name) == value for name, value in parts.items())
                if best is None or (same, changed) > best[:2]:
                    best = (same, changed, path.stem, theirs)
        if best is None:
            return Explanation(None)
        theirs = best[3]
        names = [*parts, *(name for name in theirs if name not in parts)]
        return Explanation(
            best[2],
            tuple(name for name in names if parts.get(name) == theirs.get(name)),
            {n: (theirs.get(n), parts.get(n)) for n in names if parts.get(n) != theirs.get(n)},
        )


_ELSEWHERE = "Set TRACEMILL_CACHE_DIR to a folder of your own."


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pack(kind: Kind, payload: bytes, parts: Mapping[str, str]) -> bytes:
    described = json.dumps(dict(parts), ensure_ascii=False).encode()
    body = payload + described
    return body + _TRAILER.pack(
        _MAGIC, FORMAT, _KINDS[kind].mark, len(payload), len(described), _checksum(kind, body)
    )


def _checksum(kind: Kind, body: bytes) -> bytes:
    return hashlib.blake2b(body, digest_size=16, salt=kind.encode()).digest()


def _unpack(kind: Kind, data: bytes) -> Record | None:
    if len(data) < _TRAILER.size:
        return None
    magic, version, number, length, described, checksum = _TRAILER.unpack_from(
        data, len(data) - _TRAILER.size
    )
    body = data[: -_TRAILER.size]
    if (magic, version, number) != (_MAGIC, FORMAT, _KINDS[kind].mark) or length + described != len(body):
        return None
    if _checksum(kind, body) != checksum:
        return None
    try:
        return Record(body[:length], json.loads(body[length:]))
    except ValueError:
        return None


def _read_parts(kind: Kind, path: Path) -> dict[str, str] | None:
    try:
        record = _unpack(kind, path.read_bytes())
    except OSError:
        return None
    return record.parts if record else None


def _write(path: Path, data: bytes) -> None:
    """Write a file so that it is there complete or not at all. (After a power failure the checksum
    decides.)
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with open(handle, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


_default: tuple[Path, int, DiskCache] | None = None
_default_lock = threading.Lock()


def default_cache() -> DiskCache:
    """The store that the environment variables name; the same object while they do not change.

    Raises:
        CacheError: another user owns the folder or may write to it.
        TracemillError: `TRACEMILL_CACHE_SIZE` is not a size.
    """
    global _default
    with _default_lock:
        root, limit = default_root(), size_limit()
        if _default is None or _default[:2] != (root, limit):
            _default = (root, limit, DiskCache(root, limit))
        return _default[2]
