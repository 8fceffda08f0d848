"""Vector code for numba: eight float32 values at once, one for each of eight frames.

A function decorated with `kernel` is traced: Python runs it once, when a loop that calls it is
compiled, with arguments that stand for values known later, and every operation on them becomes a
vector instruction. The function may use lists, classes and loops, which cost nothing at run time.
It reads like code for one frame, is certain to be vectorised, and compiles faster than code whose
types numba has to infer. Lanes never mix.

Built on numba's `intrinsic` (https://numba.readthedocs.io/en/stable/extending). On CPUs with
shorter vectors, LLVM uses several.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.errors import TypingError
from numba.extending import intrinsic

LANES = 8
"""Frames in a vector: a power of two. With 16, AVX-512 would be no faster, AVX2 slower."""

_FLAGS = ("contract", "nsz")
_FLOAT, _POSITION, _INTEGER = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_FLOAT, LANES)


@dataclass(frozen=True)
class Index:
    """An integer known at run time."""

    builder: Any
    value: Any

    def _operand(self, other: Index | int) -> Any:
        return other.value if isinstance(other, Index) else ir.Constant(_INTEGER, other)

    def __add__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.add(self.value, self._operand(other)))

    def __mul__(self, other: Index | int) -> Index:
        return Index(self.builder, self.builder.mul(self.value, self._operand(other)))

    def at_most(self, other: Index | int) -> Index:
        """The lesser of the two."""
        less = self.builder.icmp_signed("<", self.value, self._operand(other))
        return Index(self.builder, self.builder.select(less, self.value, self._operand(other)))

    def if_at_least(self, other: int) -> AbstractContextManager[Any]:
        """A context whose operations only run if this is at least `other`."""
        reached = self.builder.icmp_signed(">=", self.value, self._operand(other))
        context: AbstractContextManager[Any] = cgutils.if_likely(self.builder, reached)
        return context


@dataclass(frozen=True)
class Vector:
    """LANES float32 values known at run time. A Python float stands for itself in all lanes."""

    builder: Any
    value: Any

    def _operand(self, other: Vector | float) -> Any:
        if isinstance(other, Vector):
            return other.value
        return ir.Constant(_VECTOR, [ir.Constant(_FLOAT, other)] * LANES)

    def _new(self, instruction: str, a: Any, b: Any) -> Vector:
        return Vector(self.builder, getattr(self.builder, instruction)(a, b, flags=_FLAGS))

    def __add__(self, other: Vector | float) -> Vector:
        return self._new("fadd", self.value, self._operand(other))

    def __sub__(self, other: Vector | float) -> Vector:
        return self._new("fsub", self.value, self._operand(other))

    def __mul__(self, other: Vector | float) -> Vector:
        return self._new("fmul", self.value, self._operand(other))

    def __truediv__(self, other: Vector | float) -> Vector:
        return self._new("fdiv", self.value, self._operand(other))

    def _either(self, relation: str, other: Vector | float) -> Vector:
        other = self._operand(other)
        chosen = self.builder.fcmp_ordered(relation, self.value, other)
        return Vector(self.builder, self.builder.select(chosen, self.value, other))

    def at_least(self, other: Vector | float) -> Vector:
        """The greater of the two, in each lane."""
        return self._either(">", other)

    def at_most(self, other: Vector | float) -> Vector:
        """The lesser of the two, in each lane."""
        return self._either("<", other)

    def sqrt(self) -> Vector:
        """Square roots."""
        kind = ir.FunctionType(_VECTOR, [_VECTOR])
        name = f"llvm.sqrt.v{LANES}f32"
        function = cgutils.get_or_insert_function(self.builder.module, kind, name)
        return Vector(self.builder, self.builder.call(function, [self.value]))

    def lanes(self, other: Vector, chosen: list[int]) -> Vector:
        """Some lanes of this vector (0 to LANES - 1) and another one (from LANES on)."""
        mask = ir.Constant(ir.VectorType(_POSITION, LANES), chosen)
        return Vector(self.builder, self.builder.shuffle_vector(self.value, other.value, mask))


@dataclass(frozen=True)
class Array:
    """A contiguous float32 array, indexed as if flat."""

    builder: Any
    data: Any

    def _pointer(self, at: Index) -> Any:
        return self.builder.gep(self.data, [at.value])

    def _vector_pointer(self, at: Index) -> Any:
        return self.builder.bitcast(self._pointer(at), _VECTOR.as_pointer())

    def __getitem__(self, at: Index) -> Vector:
        """Elements `at` to `at` + LANES - 1."""
        return Vector(self.builder, self.builder.load(self._vector_pointer(at), align=4))

    def __setitem__(self, at: Index, value: Vector) -> None:
        self.builder.store(value.value, self._vector_pointer(at), align=4)

    def everywhere(self, at: Index) -> Vector:
        """Element `at`, in all lanes."""
        return _everywhere(self.builder, self.builder.load(self._pointer(at)))


def _everywhere(builder: Any, value: Any) -> Vector:
    undefined = ir.Constant(_VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_POSITION, 0))
    return Vector(builder, first).lanes(Vector(builder, undefined), [0] * LANES)


def dot(weights: Array, at: Index, x: Array, start: Index, count: Index) -> Vector:
    """Sum of weights[at + i] * x[start + LANES * i : ...] over i < count."""
    builder = weights.builder
    total = cgutils.alloca_once_value(builder, ir.Constant(_VECTOR, [0.0] * LANES))
    builder.store(ir.Constant(_VECTOR, [0.0] * LANES), total)
    with cgutils.for_range(builder, count.value) as loop:
        i = Index(builder, loop.index)
        part = weights.everywhere(at + i) * x[start + i * LANES]
        builder.store((part + Vector(builder, builder.load(total))).value, total)
    return Vector(builder, builder.load(total))


def transposed(rows: list[Vector]) -> list[Vector]:
    """Transpose LANES vectors as the rows of a matrix (Eklundh, 1972).

    For size = 1, 2, 4, ...: swap the off-diagonal blocks of every square of 2 * size.
    """
    size, rows = 1, list(rows)
    while size < LANES:
        upper = [lane - size + LANES if lane & size else lane for lane in range(LANES)]
        lower = [lane + LANES if lane & size else lane + size for lane in range(LANES)]
        for row in range(LANES):
            if not row & size:
                a, b = rows[row], rows[row + size]
                rows[row], rows[row + size] = a.lanes(b, upper), a.lanes(b, lower)
        size *= 2
    return rows


def kernel(function: Callable[..., None]) -> Any:
    """Make a function of `Array`, `Index` and `Vector` callable from code that numba compiles.

    It is called with contiguous float32 arrays, integers, and float32 numbers (for all lanes).

    Raises:
        TypingError: on compilation, if an array is of another type or layout.
    """

    def typed(context: Any, *kinds: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
            arguments: list[Any] = []
            for kind, value in zip(signature.args, values, strict=True):
                if isinstance(kind, types.Array):
                    data = context.make_array(kind)(context, builder, value).data
                    arguments.append(Array(builder, data))
                elif isinstance(kind, types.Integer):
                    arguments.append(Index(builder, value))
                else:
                    arguments.append(_everywhere(builder, value))
            function(*arguments)
            return context.get_dummy_value()

        for kind in kinds:
            if isinstance(kind, types.Array) and (kind.dtype, kind.layout) != (types.float32, "C"):
                raise TypingError(f"A kernel takes contiguous float32 arrays, not {kind}.")
        kinds = tuple(types.intp if isinstance(kind, types.Integer) else kind for kind in kinds)
        return types.none(*kinds), generate

    own = list(inspect.signature(function).parameters.values())
    first = inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    typed.__signature__ = inspect.Signature([first, *own])  # type: ignore[attr-defined]
    typed.__name__ = function.__name__
    return intrinsic(typed)
