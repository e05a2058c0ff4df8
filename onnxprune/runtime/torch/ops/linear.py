"""Matrix products."""

from __future__ import annotations

import torch
from torch import Tensor

from onnxprune.runtime.torch.ops.base import TorchNode, torch_op


@torch_op("MatMul")
def matmul(_: TorchNode, a: Tensor, b: Tensor) -> Tensor:
    """Numpy's matmul."""
    return torch.matmul(a, b)


@torch_op("Gemm")
def gemm(op: TorchNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """Alpha a b + beta c, with optional transposes."""
    a = a.T if op.attr("transA", 0) else a
    b = b.T if op.attr("transB", 0) else b
    alpha, beta = op.attr("alpha", 1.0), op.attr("beta", 1.0)
    if c is not None and c.ndim == 1 and alpha == beta == 1 and c.shape[0] == b.shape[1] and a.is_floating_point():
        return torch.addmm(c, a, b)
    product = a @ b
    if not product.is_floating_point():
        alpha, beta = int(alpha), int(beta)
    product = product if alpha == 1 else alpha * product
    if c is None or beta == 0:
        return product
    return product + (c if beta == 1 else beta * c)


@torch_op("Einsum")
def einsum(op: TorchNode, *inputs: Tensor) -> Tensor:
    """Einstein's sum."""
    return torch.einsum(op.attr("equation").replace(" ", ""), *inputs)


@torch_op("Det")
def determinant(_: TorchNode, x: Tensor) -> Tensor:
    """Of the last two axes."""
    found: Tensor = torch.linalg.det(x)
    return found
