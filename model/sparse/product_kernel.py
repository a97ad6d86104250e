"""The compiled loop of sparse products: rows of a CSR matrix times a dense matrix.

Arrays in, preallocated output filled; nothing is checked here.
"""

# mypy: disable-error-code="no-untyped-call, call-arg"
from __future__ import annotations

from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_AHEAD = 32
"""How many entries ahead a row is prefetched; from 24 on it made no difference."""
_LINE = 64
"""Bytes of a cache line."""
_INT, _INTP = ir.IntType(32), ir.IntType(64)


@njit(nogil=True, cache=True)
def multiply_rows(first, last, indptr, indices, values, dense, product):
    """Rows first … last - 1 of a CSR matrix times `dense`, into `product`; a row's entries are summed in order."""
    width, end = dense.shape[1], indptr[last]
    for row in range(first, last):
        start, stop, column = indptr[row], indptr[row + 1], 0
        while column + 64 <= width:
            _add_up(64, start, stop, end, column, row, indices, values, dense, product)
            column += 64
        while column + 16 <= width:
            _add_up(16, start, stop, end, column, row, indices, values, dense, product)
            column += 16
        while column < width:
            _add_up(1, start, stop, end, column, row, indices, values, dense, product)
            column += 1


@intrinsic(prefer_literal=True)
def _add_up(typing_context, lanes, start, stop, end, column, row, indices, values, dense, product):  # noqa: ARG001
    """Sum `lanes` columns from `column` on over entries start … stop - 1, of `end`, into those of `product[row]`.

    The sum stays in registers. A plain loop over columns stores and loads it again for each entry and checks each time
    for overlap with the addend: the same bits, but three times as slow.
    """

    def build(context, builder, signature, arguments):
        _, start, stop, end, column, row, *arrays = arguments
        arrays = [
            context.make_array(kind)(context, builder, array)
            for kind, array in zip(signature.args[6:], arrays, strict=True)
        ]
        indices, values, dense, product = arrays
        width, block = builder.extract_value(dense.shape, 1), ir.VectorType(ir.FloatType(), lanes.literal_value)

        def columns_of_row(array, row):
            offset = builder.add(builder.mul(row, width), column)
            return builder.bitcast(builder.gep(array.data, [offset]), block.as_pointer())

        def addend(slot):
            return columns_of_row(dense, builder.sext(builder.load(builder.gep(indices.data, [slot])), _INTP))

        total = cgutils.alloca_once_value(builder, block(None))
        with cgutils.for_range(builder, stop, start=start, intp=_INTP) as loop:
            coming = builder.add(loop.index, _INTP(_AHEAD))
            coming = builder.select(builder.icmp_signed("<", coming, end), coming, loop.index)
            _prefetch(builder, addend(coming), block.count)
            value = _repeated(builder, builder.load(builder.gep(values.data, [loop.index])), block)
            term = builder.fmul(value, builder.load(addend(loop.index), align=4))
            builder.store(builder.fadd(builder.load(total), term), total)
        builder.store(builder.load(total), columns_of_row(product, row), align=4)
        return context.get_dummy_value()

    return types.void(lanes, *(types.int64,) * 5, indices, values, dense, product), build


def _prefetch(builder, pointer, floats):
    """Prefetch the cache lines of this number of floats from a pointer on; changes no result."""
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, *(_INT,) * 3])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    first = builder.bitcast(pointer, cgutils.voidptr_t)
    for offset in range(0, 4 * floats, _LINE):
        line = builder.gep(first, [_INTP(offset)])
        builder.call(function, [line, _INT(0), _INT(3), _INT(1)])  # for reading, into the first-level cache, as data


def _repeated(builder, value, kind):
    """A vector of one value."""
    one = builder.insert_element(kind(ir.Undefined), value, _INT(0))
    return builder.shuffle_vector(one, kind(ir.Undefined), ir.VectorType(_INT, kind.count)(None))
