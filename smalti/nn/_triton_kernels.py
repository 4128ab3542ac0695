"""Four Triton kernels over tiles of u v^T: statistics of rows, weighted sums, gradients, the largest of a row.

A program owns one tile of rows of ``u`` or of ``v`` and walks over tiles of the other; the walk may be split, then each
program writes a part of its own and :mod:`smalti.nn._triton_launch` adds the parts. Every number has one writer that
adds in a fixed order, so results are the same in every run. Channels come in slices of ``part``: shared memory does not
grow with them. Formulas and names are those of :mod:`smalti.nn._chunks`.

``count`` rows of u, ``codes`` rows of v, ``share`` of the other rows for each program of a split walk; none of the
three is compiled in, so a new size costs nothing. ``share`` is a multiple of ``other``.
"""

import triton
import triton.language as tl

SIZES = ["count", "codes", "share"]


@triton.jit
def _slice(base, first, start, end, group, width: tl.constexpr, block: tl.constexpr, part: tl.constexpr):
    """Rows first .. first + block, channels start .. start + part of (G, end, width); zeros outside."""
    row, column = tl.arange(0, block), start + tl.arange(0, part)
    place = base + (group.to(tl.int64) * end + first) * width
    inside = (first + row < end)[:, None] & (column < width)[None, :]
    return tl.load(place + row[:, None] * width + column[None, :], mask=inside, other=0.0)


@triton.jit
def _vector(base, first, end, group, block: tl.constexpr):
    at = first + tl.arange(0, block)
    return tl.load(base + group.to(tl.int64) * end + at, mask=at < end, other=0.0)


@triton.jit
def _write(base, value, first, end, lane, block: tl.constexpr):
    at = first + tl.arange(0, block)
    tl.store(base + lane.to(tl.int64) * end + at, value, mask=at < end)


@triton.jit
def _scores(
    mine, a, b, first, second, ends, seconds, group,
    width: tl.constexpr, part: tl.constexpr, own: tl.constexpr, other: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Products of rows ``first`` of a with rows ``second`` of b; ``mine`` is the first slice of those of a."""
    found = tl.dot(mine, tl.trans(_slice(b, second, 0, seconds, group, width, other, part)), input_precision=precision)
    for start in range(part, width, part):
        q = _slice(a, first, start, ends, group, width, own, part)
        k = _slice(b, second, start, seconds, group, width, other, part)
        found += tl.dot(q, tl.trans(k), input_precision=precision)
    return found


@triton.jit
def _floored(y, least):
    """y, but at least ``least``; what is no number stays none, for the run to see."""
    return tl.where(y < least, least, y)


@triton.jit(do_not_specialize=SIZES)
def statistics(
    u, v, index, maximum, sums, moments, count, codes, share, log2e, least,
    width: tl.constexpr, part: tl.constexpr, own: tl.constexpr, other: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Position and value of the largest y of each row, sum of p~ and of p~ y, over ``share`` codes."""
    row, split, group = tl.program_id(0) * own, tl.program_id(1), tl.program_id(2)
    mine = _slice(u, row, 0, count, group, width, own, part)
    best = tl.zeros([own], dtype=tl.int32)
    m = tl.full([own], float("-inf"), dtype=tl.float32)
    s = tl.zeros([own], dtype=tl.float32)
    t = tl.zeros([own], dtype=tl.float32)
    for column in range(split * share, tl.minimum((split + 1) * share, codes), other):
        logits = _scores(mine, u, v, row, column, count, codes, group, width, part, own, other, precision)
        inside = (column + tl.arange(0, other) < codes)[None, :]
        logits = tl.where(inside, logits, float("-inf"))
        top, at = tl.max(logits, axis=1, return_indices=True)
        larger = top * log2e > m  # the first of equals stays
        best = tl.where(larger, at.to(tl.int32) + column, best)
        grown = tl.where(larger, top * log2e, m)
        y = _floored(logits * log2e - grown[:, None], least)
        p = tl.where(inside, tl.exp2(y), 0.0)
        shift = _floored(m - grown, least)
        t = tl.exp2(shift) * (t + shift * s) + tl.sum(p * y, axis=1)
        s = tl.exp2(shift) * s + tl.sum(p, axis=1)
        m = grown
    lane = split * tl.num_programs(2) + group
    _write(index, best.to(tl.int64), row, count, lane, own)
    _write(maximum, m, row, count, lane, own)
    _write(sums, s, row, count, lane, own)
    _write(moments, t, row, count, lane, own)


@triton.jit
def _exponents(scores, m, second, seconds, log2e, least, other: tl.constexpr):
    """y of one tile, from its products and the maxima of its rows of u; ``least`` behind the end."""
    inside = (second + tl.arange(0, other) < seconds)[None, :]
    return tl.where(inside, _floored(scores * log2e - m, least), least)


@triton.jit(do_not_specialize=SIZES)
def weighted(
    u, v, maximum, weight, total, count, codes, share, log2e, least, of_rows: tl.constexpr,
    width: tl.constexpr, part: tl.constexpr, own: tl.constexpr, other: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Sum of p~ times ``weight`` of the other side: for each row over the codes, or for each code over the rows."""
    first, split, group = tl.program_id(0) * own, tl.program_id(1), tl.program_id(2)
    if of_rows:
        a, b, ends, seconds = u, v, count, codes
        m = _vector(maximum, first, count, group, own)[:, None]
    else:
        a, b, ends, seconds = v, u, codes, count
    mine = _slice(a, first, 0, ends, group, width, own, part)
    found = tl.zeros([own], dtype=tl.float32)
    for second in range(split * share, tl.minimum((split + 1) * share, seconds), other):
        scores = _scores(mine, a, b, first, second, ends, seconds, group, width, part, own, other, precision)
        if not of_rows:
            m = _vector(maximum, second, count, group, other)[None, :]
        y = _exponents(scores, m, second, seconds, log2e, least, other)
        found += tl.sum(tl.exp2(y) * _vector(weight, second, seconds, group, other)[None, :], axis=1)
    _write(total, found, first, ends, split * tl.num_programs(2) + group, own)


@triton.jit(do_not_specialize=SIZES)
def gradient(
    u, v, maximum, inverse, slope, constant, grad_mean, grad, count, codes, share, log2e, least,
    of_rows: tl.constexpr, out: tl.constexpr,
    width: tl.constexpr, part: tl.constexpr, own: tl.constexpr, other: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """G v for rows of u, or G^T u for rows of v: ``out`` channels of it, G_ij = p~_ij (x_i + gP_j + w_i y_ij) / s_i."""
    first, group = tl.program_id(0) * own, tl.program_id(2)
    pieces: tl.constexpr = (width + out - 1) // out
    start, split = tl.program_id(1) % pieces * out, tl.program_id(1) // pieces
    if of_rows:
        a, b, ends, seconds = u, v, count, codes
        m = _vector(maximum, first, count, group, own)[:, None]
        x = _vector(constant, first, count, group, own)[:, None]
        w = _vector(slope, first, count, group, own)[:, None]
        scale = _vector(inverse, first, count, group, own)[:, None]
    else:
        a, b, ends, seconds = v, u, codes, count
        g = _vector(grad_mean, first, codes, group, own)[:, None]
    mine = _slice(a, first, 0, ends, group, width, own, part)
    found = tl.zeros([own, out], dtype=tl.float32)
    for second in range(split * share, tl.minimum((split + 1) * share, seconds), other):
        scores = _scores(mine, a, b, first, second, ends, seconds, group, width, part, own, other, precision)
        if of_rows:
            g = _vector(grad_mean, second, codes, group, other)[None, :]
        else:
            m = _vector(maximum, second, count, group, other)[None, :]
            x = _vector(constant, second, count, group, other)[None, :]
            w = _vector(slope, second, count, group, other)[None, :]
            scale = _vector(inverse, second, count, group, other)[None, :]
        y = _exponents(scores, m, second, seconds, log2e, least, other)
        slant = scale * tl.exp2(y) * (x + g + w * y)
        k = _slice(b, second, start, seconds, group, width, other, out)
        found += tl.dot(slant, k, input_precision=precision)
    row, column = first + tl.arange(0, own), start + tl.arange(0, out)
    place = grad + (split * tl.num_programs(2) + group).to(tl.int64) * ends * width
    inside = (row < ends)[:, None] & (column < width)[None, :]
    tl.store(place + row.to(tl.int64)[:, None] * width + column[None, :], found, mask=inside)


@triton.jit(do_not_specialize=SIZES)
def largest(
    u, v, offset, value, index, count, codes, share,
    width: tl.constexpr, part: tl.constexpr, own: tl.constexpr, other: tl.constexpr, precision: tl.constexpr,
):  # fmt: skip
    """Value and first position of the largest u_i . v_j + offset_j of each row, over ``share`` codes."""
    row, split, group = tl.program_id(0) * own, tl.program_id(1), tl.program_id(2)
    mine = _slice(u, row, 0, count, group, width, own, part)
    # The best of each lane, so that the lanes are compared once, behind the walk.
    best = tl.full([own, other], float("-inf"), dtype=tl.float32)
    where = tl.zeros([own, other], dtype=tl.int32) + split * share
    for column in range(split * share, tl.minimum((split + 1) * share, codes), other):
        scores = _scores(mine, u, v, row, column, count, codes, group, width, part, own, other, precision)
        scores += _vector(offset, column, codes, group, other)[None, :]
        here = (column + tl.arange(0, other))[None, :]
        larger = (scores > best) & (here < codes)
        best = tl.where(larger, scores, best)
        where = tl.where(larger, here, where)
    top = tl.max(best, axis=1)
    first = tl.min(tl.where(best == top[:, None], where, codes - 1), axis=1)
    lane = split * tl.num_programs(2) + group
    _write(value, top, row, count, lane, own)
    _write(index, first.to(tl.int64), row, count, lane, own)
