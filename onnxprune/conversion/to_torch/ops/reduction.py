"""Many values in, one out: reductions, running sums, pools, images in another size."""

from __future__ import annotations

from collections.abc import Callable

from onnxprune.conversion.to_torch.base import Call, listed, tupled, written
from onnxprune.conversion.to_torch.ops.layers import padded, window_pads
from onnxprune.conversion.to_torch.ops.layout import whole_numbers

_REDUCTIONS: dict[str, str] = {
    "ReduceL1": "{x}.abs().sum({axes})",
    "ReduceL2": "torch.linalg.vector_norm({x}, dim={axes})",
    "ReduceLogSumExp": "torch.logsumexp({x}, {axes})",
    "ReduceMax": "{x}.amax({axes})",
    "ReduceMean": "{x}.mean({axes})",
    "ReduceMin": "{x}.amin({axes})",
    "ReduceSum": "{x}.sum({axes})",
    "ReduceSumSquare": "{x}.square().sum({axes})",
}


def _register() -> None:
    for name, text in _REDUCTIONS.items():
        written(name)(_reduced(text))


def _reduced(text: str) -> Callable[[Call], str]:
    def write(op: Call) -> str:
        axes, x = whole_numbers(op, 1, "axes"), op.tensor(0)
        if not axes and op.attr("noop_with_empty_axes", 0):
            return x
        axes = axes or list(range(op.known_rank(0)))
        said = str(axes[0]) if len(axes) == 1 else f"({listed(axes)})"
        return text.format(x=x, axes=said + (", keepdim=True" if op.attr("keepdims", 1) else ""))

    return write


_register()


@written("ReduceProd")
def product_of(op: Call) -> str:
    """The product along one axis after the other."""
    axes = whole_numbers(op, 1, "axes") or list(range(op.known_rank(0)))
    keep = ", keepdim=True" if op.attr("keepdims", 1) else ""
    order = sorted((axis % op.known_rank(0) for axis in axes), reverse=True)
    return op.tensor(0) + "".join(f".prod({axis}{keep})" for axis in order)


@written("CumSum")
def running_sum(op: Call) -> str:
    """Along an axis, from the front."""
    if op.attr("exclusive", 0) or op.attr("reverse", 0):
        raise op.refuse("it sums from the end, or without the entry itself")
    return f"{op.tensor(0)}.cumsum({op.numbers(1)[0]})"


@written("GlobalAveragePool", "GlobalMaxPool")
def global_pool(op: Call) -> str:
    """Over all axes behind the channels."""
    axes = listed(range(2, op.known_rank(0)))
    name = "mean" if op.node.op_type == "GlobalAveragePool" else "amax"
    return (
        f"{op.tensor(0)}.{name}(({axes}), keepdim=True)"
        if "," in axes
        else f"{op.tensor(0)}.{name}({axes}, keepdim=True)"
    )


@written("MaxPool", "AveragePool")
def pool(op: Call) -> str:
    """By windows; pads that differ from side to side come before."""
    if op.wants(1):
        raise op.refuse("it gives out positions")
    kernel = list(op.attr("kernel_shape"))
    count, largest = len(kernel), op.node.op_type == "MaxPool"
    if not 1 <= count <= 3:
        raise op.refuse("pools of torch have one to three spatial axes")
    strides, dilations = list(op.attr("strides") or [1] * count), list(op.attr("dilations") or [1] * count)
    pads = window_pads(op, kernel, strides, dilations)
    same = pads[:count] == pads[count:] and all(2 * pad <= width for pad, width in zip(pads, kernel, strict=False))
    counted = bool(op.attr("count_include_pad", 0))
    if not largest and max(dilations) > 1:
        raise op.refuse("average pools of torch have no dilation")
    if not same and not largest and not counted:
        raise op.refuse("its padding differs from side to side and is not counted")
    x = op.tensor(0) if same else padded(op.tensor(0), pads, ', value=float("-inf")' if largest else "")
    options = f", stride={tupled(strides)}"
    options += f", padding={tupled(pads[:count])}" if same and any(pads) else ""
    options += f", dilation={tupled(dilations)}" if max(dilations) > 1 else ""
    options += ", ceil_mode=True" if op.attr("ceil_mode", 0) else ""
    options += ", count_include_pad=False" if not largest and not counted and any(pads) else ""
    return f"F.{'max' if largest else 'avg'}_pool{count}d({x}, {tupled(kernel)}{options})"


@written("Resize", "Upsample")
def resize(op: Call) -> str:
    """Images in another size, in the ways that F.interpolate has; others are refused."""
    x, rank = op.tensor(0), op.known_rank(0)
    scales = op.constant(2 if op.node.op_type == "Resize" and op.version >= 11 else 1)
    mode = _mode(op, rank - 2)
    if op.has(3):
        return f"F.interpolate({x}, size=({listed(op.numbers(3)[2:])}), {mode})"
    if scales is None or len(scales) != rank or any(scale != 1 for scale in scales[:2]):
        raise op.refuse("its scales are computed, or change more than the spatial axes")
    factors = [f"{float(scale):.9g}" for scale in scales[2:]]
    said = factors[0] if len(set(factors)) == 1 else f"({listed(factors)})"
    return f"F.interpolate({x}, scale_factor={said}, {mode})"


def _mode(op: Call, count: int) -> str:
    """The arguments of F.interpolate. Raises ModelError where it has none that do the same."""
    mode = op.attr("mode", "nearest").replace("linear", "linear")
    where = op.attr("coordinate_transformation_mode", "half_pixel" if op.version >= 11 else "asymmetric")
    if mode == "nearest":
        rounds = op.attr("nearest_mode", "round_prefer_floor")
        exact = where == "half_pixel" and rounds.startswith("round_prefer")
        if not exact and not (where == "asymmetric" and (rounds == "floor" or op.version < 11)):
            raise op.refuse(f"torch has no nearest neighbour of {where} and {rounds}")
        return f'mode="nearest{"-exact" if exact else ""}"'
    if where not in ("half_pixel", "pytorch_half_pixel", "align_corners") or op.attr("antialias", 0):
        raise op.refuse(f"torch does not interpolate by {where}")
    if mode == "cubic" and (count != 2 or abs(op.attr("cubic_coeff_a", -0.75) + 0.75) > 1e-6):
        raise op.refuse("torch has another cubic function")
    kind = "bicubic" if mode == "cubic" else {1: "linear", 2: "bilinear", 3: "trilinear"}[count]
    return f'mode="{kind}", align_corners={where == "align_corners"}'
