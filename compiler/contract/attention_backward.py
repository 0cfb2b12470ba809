"""The backward attention kernel: one step of its parallel range is one head."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ...ir.dims import Dim, dmax
from ..kernel import KernelSource
from .attention import BLOCK, KEYS, ROWS, Attention, heads
from .text import fill, store

_OPERANDS = ("q", "k", "v", "o", "g", "dq", "dk", "dv")


@dataclass(frozen=True)
class AttentionBackward(Attention):
    """Cotangents of q, k and v, given the result's.

    With probabilities P made again from the saved logarithms, dP = dO·vᵀ and δ = rowsum(dO ∘ O): dv = Pᵀ·dO,
    dS = P ∘ (dP − δ)·scale, dq = dS·k, dk = dSᵀ·q (Dao et al., 2022). Row blocks are outermost: dq is finished block by
    block, dk and dv of the whole head grow in scratch.

    Operands: q, k, v, out, the row-major logarithms, the result's cotangent, (mask,) dq, dk, dv.
    """

    @property
    def _strided(self) -> tuple[str, ...]:
        return _OPERANDS if self.mask == "none" else (*_OPERANDS, "mask")

    @property
    def _areas(self) -> tuple[str, ...]:
        """Areas of scratch whose sizes follow from the features and the keys."""
        wide = ("wide_q", "wide_k", "wide_v", "wide_o", "wide_g") if self.narrow else ()
        return ("panel", "acc_q", "acc_k", "acc_v", "lines_o", "lines_g", *wide)

    @property
    def extents(self) -> tuple[str, ...]:
        """Own extents in order: sizes, strides of q, k, v, o, g, dq, dk, dv (and the mask), areas of scratch."""
        return self.all_extents(self._strided, (f"area_{name}" for name in self._areas))

    def parallel_range(self, batch: tuple[Dim, ...], rows: Dim) -> Dim:
        """Steps of the parallel range."""
        return heads(batch)

    def _fixed(self) -> dict[str, int]:
        """Elements of the areas whatever the sizes."""
        return {"ends": 2 * ROWS, "delta": ROWS, "score": BLOCK, "slope": BLOCK,
                "side": KEYS * self.register_tile.columns}

    def scratch(self, s: Dim, d: Dim, e: Dim) -> tuple[tuple[Dim, ...], Dim]:
        """Values of the last extents, and all scratch bytes of one thread: blocks, and the cotangents of one head's
        keys and values."""
        d_wide, e_wide = self.padded(d), self.padded(e)
        sizes: list[Dim] = [dmax(d, e) * self.register_tile.columns, ROWS * d_wide, s * d_wide, s * e_wide, ROWS * e,
                            ROWS * e]
        if self.narrow:
            sizes += [ROWS * d, KEYS * d, KEYS * e, ROWS * e, ROWS * e]
        *areas, total = self.offsets(sizes, self.offsets(self._fixed().values())[-1])
        return tuple(areas), total

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        names, fixed, masks = self.extents, self._fixed(), 0 if self.mask == "none" else 1
        results = {name: 6 + masks + i for i, name in enumerate(("dq", "dk", "dv"))}
        source = fill(
            _BACKWARD,
            **self.constants(),
            **{f"{x}_pointer": self.pointer(x, i) for i, x in (*enumerate("qkvo"), (5, "g"))},
            **{f"{x}_pointer": self.pointer(x, i) for x, i in results.items()},
            l_pointer=f"lse = {self.dtype.compute}_ptr(buffers, 4)",
            mask_pointer=self.mask_pointer(6),
            extents=self.loads(names),
            fixed_areas=self.areas(fixed, self.offsets(fixed.values())[:-1], 0),
            areas=self.areas(self._areas, (f"area_{name}" for name in self._areas), len(fixed)),
            seen="mask_seen = -1\nrow_seen = -1\nholes = 0" if self.skips else "",
            places=self.places(self._strided),
            ahead=self.ahead(self._strided, "head + 1", self._sizes("qkvog")),
            own=self.ahead(self._strided, "head", self._sizes(("dq", "dk", "dv")), "own"),
            ends=self.ends(),
            scaled=self.scaled(),
            unseen=self.unseen(),
            **self.staged("q", "rows", "size_d", "q_at + row0 * q_row"),
            **self.staged("o", "rows", "size_e", "o_at + row0 * o_row"),
            **self.staged("g", "rows", "size_e", "g_at + row0 * g_row"),
            **self.staged("k", "keys", "size_d", "k_at + key0 * k_row"),
            **self.staged("v", "keys", "size_e", "v_at + key0 * v_row"),
            put_dq=self._put("dq", "dq_at + row0 * dq_row", "acc_q", "rows", "size_d", "pitch_d"),
            put_dk=self._put("dk", "dk_at", "acc_k", "size_s", "size_d", "pitch_d"),
            put_dv=self._put("dv", "dv_at", "acc_v", "size_s", "size_e", "pitch_e"),
        )
        return KernelSource("kernel", source, 9 + masks, names)

    @staticmethod
    def _sizes(names: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Rows and columns of operands."""
        return {x: ("size_s" if x[-1] in "kv" else "size_t", "size_e" if x[-1] in "vog" else "size_d") for x in names}

    def _put(self, name: str, at: str, area: str, rows: str, size: str, pitch: str) -> str:
        """Lines that write rows of accumulators to a result."""
        if not self.narrow:
            return f"copy_{self.dtype}({name}, {at}, {name}_row, {name}_col, {area}, 0, {pitch}, {rows}, {size})"
        put = store(self.dtype, name, f"{at} + row * {name}_row + col * {name}_col", f"{area}[row * {pitch} + col]")
        return f"for row in range({rows}):\n    for col in range({size}):\n        {put}"


_BACKWARD = """
def kernel(buffers, extents, begin, end, scratch, status):
    $q_pointer
    $k_pointer
    $v_pointer
    $o_pointer
    $l_pointer
    $g_pointer
    $mask_pointer
    $dq_pointer
    $dk_pointer
    $dv_pointer
    $extents
    $fixed_areas
    $areas
    factor = ${compute}(bits_f64(scale_bits))
    hidden = ${compute}(bits_f64(hidden_bits))
    pitch = (imin($KEYS, size_s) + 15) // 16 * 16 + $STAGGER
    pitch_d = (size_d + $COLUMNS - 1) // $COLUMNS * $COLUMNS
    pitch_e = (size_e + $COLUMNS - 1) // $COLUMNS * $COLUMNS
    $seen
    for head in range(begin, end):
        $places
        $own
        if head + 1 < end:
            $ahead
            pass
        for i in range(size_s * pitch_d):
            acc_k[i] = ${compute}(0.0)
        for i in range(size_s * pitch_e):
            acc_v[i] = ${compute}(0.0)
        for row0 in range(0, size_t, $ROWS):
            rows = imin($ROWS, size_t - row0)
            $ends
            most = 0
            for i in range(rows):
                most = imax(most, ends[i])
            $stage_q
            $stage_o
            $stage_g
            # Rows of the result and of its cotangent with neighbours side by side, for their product.
            if $o_c == 1 and $g_c == 1:
                dot_rows_${compute}(delta, $o_in, $o_r, $g_in, $g_r, size_e, rows)
            else:
                for i in range(rows):
                    pad_${compute}(lines_o, i * size_e, 1, $o_in, i * $o_r, $o_c, 0, size_e, size_e)
                    pad_${compute}(lines_g, i * size_e, 1, $g_in, i * $g_r, $g_c, 0, size_e, size_e)
                dot_rows_${compute}(delta, lines_o, size_e, lines_g, size_e, size_e, rows)
            for key0 in range(0, imax(most, 1), $KEYS):  # with no key at all: once, to get zeros
                keys = imin($KEYS, most - key0)
                $stage_k
                $stage_v
                seen_$product(score, pitch, $q_in, $q_r, $q_c, $k_in, $k_r, $k_c, panel, size_d, ends, key0, keys, rows)
                seen_$product(slope, pitch, $g_in, $g_r, $g_c, $v_in, $v_r, $v_c, panel, size_e, ends, key0, keys, rows)
                $scaled
                grad_rows_${compute}(score, slope, pitch, ends, key0, keys, rows, scale, factor,
                                     offset(lse, head * size_t + row0), delta)
                $unseen
                late_$product(offset(acc_v, key0 * pitch_e), pitch_e, score, pitch, $g_in, $g_r, $g_c, side, size_e,
                              ends, key0, keys, rows)
                late_$product(offset(acc_k, key0 * pitch_d), pitch_d, slope, pitch, $q_in, $q_r, $q_c, side, size_d,
                              ends, key0, keys, rows)
                early_$product(acc_q, pitch_d, slope, pitch, $k_in, $k_r, $k_c, side, size_d, ends, key0, keys, rows,
                               imin(1, key0))
            $put_dq
        $put_dk
        $put_dv
    return 0
"""
