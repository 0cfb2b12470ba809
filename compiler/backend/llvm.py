"""LLVM behind the front end: target machine, optimisation, object code. Imports llvmlite, not Numba."""

from __future__ import annotations

import functools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import llvmlite.binding as llvm

from ...ir.errors import TracemillError


@dataclass(frozen=True, slots=True)
class Target:
    """The machine to generate code for: LLVM's names."""

    triple: str
    cpu: str
    features: str


def target(cpu: str | None = None) -> Target:
    """The target for `cpu`: an LLVM name (`x86-64-v3`, `znver4`), or None for `TRACEMILL_CPU`, or else the
    host.
    """
    return _target(cpu or os.environ.get("TRACEMILL_CPU") or "native")


@functools.cache
def _target(cpu: str) -> Target:
    triple = llvm.get_process_triple()
    if sys.platform in ("win32", "darwin"):
        triple += "-elf"  # the loader reads ELF everywhere
    if cpu != "native":
        _check_cpu(triple, cpu)
        return Target(triple, cpu, "")
    return Target(triple, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())


@functools.cache
def _check_cpu(triple: str, cpu: str) -> None:
    """Refuse a CPU that LLVM does not know: it would end the process. So another process asks."""
    program = (
        "import sys, llvmlite.binding as llvm; llvm.initialize_native_target();"
        "llvm.Target.from_triple(sys.argv[1]).create_target_machine(cpu=sys.argv[2], reloc='pic')"
    )
    command = [sys.executable, "-c", program, triple, cpu]
    if sys.executable:
        asked = subprocess.run(command, capture_output=True, text=True, check=False)
        if asked.returncode != 0 or "not a recognized processor" in asked.stderr:
            raise TracemillError(
                f"LLVM does not know the CPU {cpu!r}",
                hint="set TRACEMILL_CPU to a name such as x86-64-v3, skylake-avx512 or znver4, or to native",
            )


_DEFINITION = re.compile(r"^(define .*)$", re.MULTILINE)
# Without "no-builtins" LLVM would turn copy loops into calls of memcpy, and kernels call nothing outside
# themselves.
_ATTRIBUTES = '\nattributes #0 = { nounwind "no-builtins" }\n'


@functools.lru_cache(maxsize=8)
def target_machine(where: Target) -> Any:
    """LLVM's target machine: position-independent code, small code model, no fused multiply-adds of its own
    making.

    Raises:
        TracemillError: LLVM does not know the CPU.
    """
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    try:
        return llvm.Target.from_triple(where.triple).create_target_machine(
            cpu=where.cpu, features=where.features, opt=3, reloc="pic", codemodel="default"
        )
    except RuntimeError as error:
        raise TracemillError(f"LLVM cannot generate code for CPU {where.cpu!r}: {error}") from error


def optimise(modules: list[str], symbol: str, where: Target, light: bool = False) -> Any:
    """Parse, link and optimise modules (LLVM text); only `symbol` stays visible. Returns llvmlite's
    module.

    Args:
        light: only clean up: values out of memory, branches and arithmetic simplified. For code that is vectors
            already the other passes take ten times as long and change nothing but its size.
    """
    machine = target_machine(where)
    linked: Any = None
    for text in modules:
        module = llvm.parse_assembly(_DEFINITION.sub(r"\1 #0", text) + _ATTRIBUTES)
        if linked is None:
            linked = module
        else:
            linked.link_in(module)
    linked.name = symbol
    linked.triple = where.triple
    linked.data_layout = str(machine.target_data)
    for function in linked.functions:
        if not function.is_declaration and function.name != symbol:
            function.linkage = "internal"
    linked.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=0 if light else 2)
    options.loop_vectorization = True
    options.slp_vectorization = True
    options.loop_interleaving = True
    options.loop_unrolling = True
    builder = llvm.create_pass_builder(machine, options)
    passes = llvm.create_new_module_pass_manager() if light else builder.getModulePassManager()
    if light:
        passes.add_sroa_pass()
        passes.add_simplify_cfg_pass()
        passes.add_instruction_combine_pass()
        passes.add_simplify_cfg_pass()
    passes.run(linked, builder)
    return linked


def emit_object(module: Any, where: Target) -> bytes:
    """The module's relocatable object (ELF)."""
    return bytes(target_machine(where).emit_object(module))


def emit_assembly(module: Any, where: Target) -> str:
    """The module's assembly text."""
    return str(target_machine(where).emit_assembly(module))


def assemble(text: str, where: Target) -> str:
    """The assembly of LLVM IR as it stands, nothing optimised."""
    machine = target_machine(where)
    module = llvm.parse_assembly(text)
    module.triple = where.triple
    module.data_layout = str(machine.target_data)
    return emit_assembly(module, where)
