"""The forward attention kernel: one step of its parallel range is a block of query rows of one head."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.dims import Dim, floordiv
from ..kernel import KernelSource
from .attention import BLOCK, KEYS, ROWS, Attention, heads
from .text import fill, store

_OPERANDS = ("q", "k", "v", "o")


@dataclass(frozen=True)
class AttentionForward(Attention):
    """`out = softmax(q·kᵀ·scale + mask)·v` and each row's `log Σ exp(score)`.

    Operands: q, k, v, (mask,) out, and the row-major `[batch..., rows]` logarithms in the compute dtype.
    """

    @property
    def _strided(self) -> tuple[str, ...]:
        return _OPERANDS if self.mask == "none" else (*_OPERANDS, "mask")

    @property
    def _areas(self) -> tuple[str, ...]:
        """Areas of scratch whose sizes follow from the features."""
        return ("panel", "acc", "wide_q", "wide_k", "wide_v") if self.narrow else ("panel", "acc")

    @property
    def extents(self) -> tuple[str, ...]:
        """Own extents in order: sizes, strides of q, k, v, o (and the mask), areas of scratch."""
        return self.all_extents(self._strided, (f"area_{name}" for name in self._areas))

    def parallel_range(self, batch: tuple[Dim, ...], rows: Dim) -> Dim:
        """Steps of the parallel range."""
        return heads(batch) * floordiv(rows + (ROWS - 1), ROWS)

    def _fixed(self) -> dict[str, int]:
        """Elements of the areas whatever the sizes."""
        return {"ends": 2 * ROWS, "top": ROWS, "total": ROWS, "shrink": ROWS, "score": BLOCK,
                "side": KEYS * self.register_tile.columns}

    def scratch(self, d: Dim, e: Dim) -> tuple[tuple[Dim, ...], Dim]:
        """Values of the last extents, and all scratch bytes of one thread: blocks only, whatever the lengths."""
        sizes: list[Dim] = [d * self.register_tile.columns, ROWS * self.padded(e)]
        if self.narrow:
            sizes += [ROWS * d, KEYS * d, KEYS * e]
        *areas, total = self.offsets(sizes, self.offsets(self._fixed().values())[-1])
        return tuple(areas), total

    def kernel(self) -> KernelSource:
        """The kernel's source."""
        names, fixed, masks = self.extents, self._fixed(), 0 if self.mask == "none" else 1
        compute = self.dtype.compute
        source = fill(
            _FORWARD,
            **self.constants(),
            q_pointer=self.pointer("q", 0),
            k_pointer=self.pointer("k", 1),
            v_pointer=self.pointer("v", 2),
            mask_pointer=self.mask_pointer(3),
            o_pointer=self.pointer("o", 3 + masks),
            l_pointer=f"lse = {compute}_ptr(buffers, {4 + masks})",
            extents=self.loads(names),
            fixed_areas=self.areas(fixed, self.offsets(fixed.values())[:-1], 0),
            areas=self.areas(self._areas, (f"area_{name}" for name in self._areas), len(fixed)),
            seen="mask_seen = -1\nrow_seen = -1\nholes = 0" if self.skips else "",
            places=self.places(self._strided),
            ahead=self.ahead(self._strided, "head + 1", {"q": ("size_t", "size_d"), "k": ("size_s", "size_d"),
                                                         "v": ("size_s", "size_e")}),
            ends=self.ends(),
            scaled=self.scaled(),
            put=self._put(),
            **self.staged("q", "rows", "size_d", "q_at + row0 * q_row"),
            **self.staged("k", "keys", "size_d", "k_at + key0 * k_row"),
            **self.staged("v", "keys", "size_e", "v_at + key0 * v_row"),
        )
        return KernelSource("kernel", source, 5 + masks, names)

    def _put(self) -> str:
        """Lines that write the finished rows."""
        if not self.narrow:
            target = "offset(o, o_at + row0 * o_row)"
            return f"put_rows_{self.dtype}({target}, o_row, o_col, acc, pitch_e, total, rows, size_e)"
        value = "acc[i * pitch_e + col] * total[i]"
        put = store(self.dtype, "o", "o_at + (row0 + i) * o_row + col * o_col", value)
        return f"for i in range(rows):\n    for col in range(size_e):\n        {put}"


_FORWARD = """
def kernel(buffers, extents, begin, end, scratch, status):
    $q_pointer
    $k_pointer
    $v_pointer
    $mask_pointer
    $o_pointer
    $l_pointer
    $extents
    $fixed_areas
    $areas
    factor = ${compute}(bits_f64(scale_bits))
    hidden = ${compute}(bits_f64(hidden_bits))
    blocks = (size_t + $ROWS - 1) // $ROWS
    pitch = (imin($KEYS, size_s) + 15) // 16 * 16 + $STAGGER
    pitch_e = (size_e + $COLUMNS - 1) // $COLUMNS * $COLUMNS
    $seen
    for step in range(begin, end):
        head = udiv(step, blocks)
        row0 = (step - head * blocks) * $ROWS
        rows = imin($ROWS, size_t - row0)
        $places
        $ends
        if blocks == 1 and step + 1 < end:
            $ahead
            pass
        most = 0
        for i in range(rows):
            most = imax(most, ends[i])
            top[i] = $low
            total[i] = ${compute}(0.0)
        $stage_q
        for key0 in range(0, imax(most, 1), $KEYS):  # with no key at all: once, to get zeros
            keys = imin($KEYS, most - key0)
            $stage_k
            seen_$product(score, pitch, $q_in, $q_r, $q_c, $k_in, $k_r, $k_c, panel, size_d, ends, key0, keys, rows)
            $scaled
            exp_rows_${compute}(score, pitch, ends, key0, keys, rows, scale, top, total, shrink)
            resume = 0
            if key0 > 0:
                resume = 1
                put_rows_${compute}(acc, pitch_e, 1, acc, pitch_e, shrink, rows, pitch_e)
            $stage_v
            early_$product(acc, pitch_e, score, pitch, $v_in, $v_r, $v_c, side, size_e, ends, key0, keys, rows, resume)
        log_rows_${compute}(top, total, rows)
        $put
        for i in range(rows):
            lse[head * size_t + row0 + i] = top[i]
    return 0
"""
