"""The algebra of dimensions: what every axis of every tensor is made of.

    Dim := Atom(n)                 n independent units
         | Concat(Dim, Dim, ...)   laid one after the other: sizes add
         | Product(Dim, Dim, ...)  row-major nesting: sizes multiply, outermost factor first
         | Permuted(Dim, order)    the same entries in another order

Atoms are the nodes of a union-find forest: `unify` binds an atom to whatever it met, `cut` and `factor` bind it to the
pieces it proved to have. Every tensor axis that mentions the atom sees the refinement, so one pass over a graph is
enough. Sizes are concrete; terms of size 0 and factors of size 1 are dropped, so no dimension ever contains itself.

This package knows nothing of ONNX: plain Python and numpy.
"""

from onnxprune.dims.forms import (
    Atom,
    Concat,
    Dim,
    Permuted,
    Product,
    atoms,
    concat,
    factors,
    freeze,
    handle,
    permuted,
    product,
    resolve,
    terms,
)
from onnxprune.dims.masks import Mask, describe, keep_mask, kept_size, project, replaced, units_of
from onnxprune.dims.refine import MisalignedError, cut, factor, unify

__all__ = [
    "Atom",
    "Concat",
    "Dim",
    "Mask",
    "MisalignedError",
    "Permuted",
    "Product",
    "atoms",
    "concat",
    "cut",
    "describe",
    "factor",
    "factors",
    "freeze",
    "handle",
    "keep_mask",
    "kept_size",
    "permuted",
    "product",
    "project",
    "replaced",
    "resolve",
    "terms",
    "unify",
    "units_of",
]
