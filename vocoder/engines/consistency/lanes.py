"""A numba type for vectors of eight float32 values: the same quantity of eight frames.

Code on vectors reads like code for one frame, and becomes plain vector instructions of the CPU at
hand: whether a loop is vectorised is not left to the compiler's judgement. No lane ever depends on
another one.

Written with numba's extension API (https://numba.readthedocs.io/en/stable/extending). LLVM splits
the vectors where a CPU's own are shorter.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import models
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, register_model

LANES = 8
"""Frames in a vector: a power of two. With 16, AVX-512 would be no faster, AVX2 slower."""

_FLAGS = ("contract", "nsz")
_VECTOR = ir.VectorType(ir.FloatType(), LANES)
_INDEX = ir.IntType(32)


class _Vector(types.Type):  # type: ignore[misc]
    """The type of a vector; vectors live in compiled code only."""

    def __init__(self) -> None:
        super().__init__(name=f"Vector({LANES})")


vector = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _VECTOR)


def _shuffled(builder: Any, a: Any, b: Any, lanes: list[int]) -> Any:
    """Lanes of a (0 to LANES - 1) and b (LANES to 2 LANES - 1)."""
    return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(_INDEX, LANES), lanes))


def _broadcast(builder: Any, value: Any) -> Any:
    """A number in all lanes; vectors stay."""
    if isinstance(value.type, ir.VectorType):
        return value
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INDEX, 0))
    return _shuffled(builder, first, undefined, [0] * LANES)


def _define(function: Any, instruction: str) -> None:
    """Let vectors, and a vector and a float32, be operands of a function of two."""

    class Template(AbstractTemplate):  # type: ignore[misc]
        key = function

        def generic(self, args: Any, kws: Any) -> Any:
            fits = len(args) == 2 and all(arg in (vector, types.float32) for arg in args)
            return signature(vector, *args) if fits and vector in args else None

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        a, b = (_broadcast(builder, arg) for arg in args)
        if instruction in ("<", ">"):
            return builder.select(builder.fcmp_ordered(instruction, a, b), a, b)
        return getattr(builder, instruction)(a, b, flags=_FLAGS)

    infer_global(function)(Template)
    for kinds in ((vector, vector), (vector, types.float32), (types.float32, vector)):
        lower_builtin(function, *kinds)(lower)


_define(operator.add, "fadd")
_define(operator.sub, "fsub")
_define(operator.mul, "fmul")
_define(operator.truediv, "fdiv")
_define(min, "<")
_define(max, ">")


def _pointer(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """The address of element `index` of a contiguous array, however many dimensions it has."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _VECTOR.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def load(typing: Any, array: Any, at: Any) -> Any:
    """The vector of elements `at` to `at` + LANES - 1 of a flat contiguous array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return vector(array, types.intp), generate


@intrinsic  # type: ignore[untyped-decorator]
def store(typing: Any, array: Any, at: Any, value: Any) -> Any:
    """The elements `at` to `at` + LANES - 1 of a flat contiguous array become a vector."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        to = _pointer(context, builder, signature.args[0], *args[:2])
        builder.store(args[2], to, align=4)
        return context.get_dummy_value()

    return types.none(array, types.intp, value), generate


@intrinsic  # type: ignore[untyped-decorator]
def splat(typing: Any, value: Any) -> Any:
    """A vector with one float32 in all lanes."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _broadcast(builder, args[0])

    return vector(types.float32), generate


@intrinsic  # type: ignore[untyped-decorator]
def sqrt(typing: Any, value: Any) -> Any:
    """The square roots."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{LANES}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return vector(vector), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """LANES vectors as the columns of a matrix become its rows (Eklundh, 1972).

    With size = 1, 2, 4, ...: the off-diagonal blocks of each square of 2 * size change places.
    """
    size = 1
    while size < LANES:
        upper = [l - size + LANES if l & size else l for l in range(LANES)]
        lower = [l + LANES if l & size else l + size for l in range(LANES)]
        for row in range(LANES):
            if not row & size:
                a, b = rows[row], rows[row + size]
                rows[row] = _shuffled(builder, a, b, upper)
                rows[row + size] = _shuffled(builder, a, b, lower)
        size *= 2
    return rows


@intrinsic  # type: ignore[untyped-decorator]
def to_lanes(
    typing: Any, x: Any, at: Any, distance: Any, last: Any, scale: Any, out: Any, to: Any
) -> Any:
    """Eight samples of each of eight frames: out[to + LANES * n + k] = scale[n] * x[at_k + n].

    Here at_k = at + distance * min(k, last): lanes beyond frame `last` repeat it.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, distance, last, scale, out, to = args
        rows = []
        for lane in range(LANES):
            number = ir.Constant(last.type, lane)
            number = builder.select(builder.icmp_signed("<", number, last), number, last)
            index = builder.add(at, builder.mul(number, distance))
            row = builder.load(_pointer(context, builder, signature.args[0], x, index), align=4)
            rows.append(builder.fmul(row, scale, flags=_FLAGS))
        for n, row in enumerate(_transposed(builder, rows)):
            index = builder.add(to, ir.Constant(to.type, LANES * n))
            builder.store(row, _pointer(context, builder, signature.args[5], out, index), align=4)
        return context.get_dummy_value()

    integer = types.intp
    return types.none(x, integer, integer, integer, vector, out, integer), generate


@intrinsic  # type: ignore[untyped-decorator]
def add_from_lanes(
    typing: Any, x: Any, at: Any, scale: Any, out: Any, to: Any, distance: Any, last: Any
) -> Any:
    """The adjoint of `to_lanes`: out[to_k + n] += scale[n] * x[at + LANES * n + k], k <= last."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, at, scale, out, to, distance, last = args
        rows = []
        for n in range(LANES):
            index = builder.add(at, ir.Constant(at.type, LANES * n))
            row = builder.load(_pointer(context, builder, signature.args[0], x, index), align=4)
            rows.append(row)
        for lane, row in enumerate(_transposed(builder, rows)):
            number = ir.Constant(last.type, lane)
            with cgutils.if_likely(builder, builder.icmp_signed("<=", number, last)):
                index = builder.add(to, builder.mul(number, distance))
                pointer = _pointer(context, builder, signature.args[3], out, index)
                part = builder.fmul(row, scale, flags=_FLAGS)
                total = builder.fadd(builder.load(pointer, align=4), part, flags=_FLAGS)
                builder.store(total, pointer, align=4)
        return context.get_dummy_value()

    integer = types.intp
    return types.none(x, integer, vector, out, integer, integer, integer), generate
