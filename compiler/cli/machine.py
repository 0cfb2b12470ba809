"""`tracemill cache` and `tracemill info`."""

from __future__ import annotations

import platform
import sys

import click

_PACKAGES = ("numpy", "numba", "llvmlite", "networkx", "lark", "safetensors", "ml_dtypes")


@click.group("cache")
def cache_command() -> None:
    """Look at, or empty, the cache of plans and kernels on disk.

    \b
    Example:
      tracemill cache info
    """


@cache_command.command("info")
def cache_info() -> None:
    """Folder, number of kernels and plans, bytes."""
    from ..cache import default_cache

    info = default_cache().info()
    click.echo(f"folder   {info.root}{'' if info.writable else '  (read-only)'}")
    click.echo(f"kernels  {info.kernels}")
    click.echo(f"plans    {info.plans}")
    click.echo(f"size     {info.size:,} of at most {info.limit:,} bytes")


@cache_command.command("clear")
def cache_clear() -> None:
    """Remove every plan and kernel. Nothing but time is lost."""
    from ..cache import default_cache

    click.echo(f"{default_cache().clear()} records removed")


@click.command("info")
def info_command() -> None:
    """Versions, CPU, threads and folders: what a bug report needs.

    \b
    Example:
      tracemill info
    """
    from ...runtime.workers import get_num_threads
    from ..cache import default_root
    from ..fingerprint import compiler_digest, cpu_identity, package_version

    rows = [("tracemill", f"{package_version('tracemill')} ({compiler_digest()[:12]})"),
            ("python", f"{platform.python_version()} on {sys.platform} {platform.machine()}"),
            *((name, package_version(name)) for name in _PACKAGES),
            ("cpu", cpu_identity()), ("threads", str(get_num_threads())), ("cache", str(default_root()))]
    for name, value in rows:
        click.echo(f"{name:12} {value}")
