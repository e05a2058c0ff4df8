"""Weights and activations as integers of 8 bits, with grids from calibration data."""

from __future__ import annotations

import onnx_ir as ir

from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.layers import Layer, layers
from onnxprune.errors import UsageError
from onnxprune.steps.quantize.base import Quantized, QuantizeJob, quantized_type
from onnxprune.steps.quantize.fit import LayerNoise, LayerWalk, round_nearest, some_batches
from onnxprune.steps.quantize.insert import Editor, insert_pairs
from onnxprune.steps.quantize.observe import find_grids
from onnxprune.steps.quantize.placement import Placement, place
from onnxprune.steps.quantize.prepare import RAISED_TO, is_too_old
from onnxprune.steps.quantize.recurrent import quantize_recurrent, recurrent_names
from onnxprune.steps.quantize.store import store_bias, store_weights

RAISED = f"opset raised to {RAISED_TO}: older ones have no operators on integers"
# Samples that layers are fitted to; more say little more and take their time.
_SAMPLES = 512


@quantized_type("int8", calibrated=True, trained=True)
def int8(job: QuantizeJob) -> Quantized:
    """Weights and activations in 8 bits: QuantizeLinear and DequantizeLinear around what then runs on integers."""
    before = job.float_model
    after = copy_analysis(before)
    pairs = list(zip(layers(before), layers(after), strict=True))
    left_out = job.left_out([*(layer.name for layer, _ in pairs), *recurrent_names(after.model)])
    placement = place(after, [layer for _, layer in pairs], left_out)
    recurrent = quantize_recurrent(Editor(after.model), job.weight_bits, left_out)
    if not placement.layers and not any(each.bits for each in recurrent):
        raise UsageError("nothing in this model can run on integers: no Conv, Gemm or MatMul with weights, and no LSTM")
    chosen = {layer.node for layer in placement.layers}
    noise = _static(job, before, after, placement, [pair for pair in pairs if pair[1].node in chosen])
    operators = {layer.name: layer.node.op_type for layer, _ in pairs}
    kept = [LayerNoise(name, operators[name], 0, why=why) for name, why in placement.kept.items()]
    choices = {
        "activations": "uint8" if job.processor.unsigned else "int8",
        "weight_bits": job.weight_bits,
        "processor": job.processor.name,
        "ranges": job.options.ranges,
        "equalized": job.equalized,
    }
    order = {name: at for at, name in enumerate(operators)}
    found = sorted([*noise, *kept], key=lambda each: order[each.layer])
    notes = [RAISED] if is_too_old(job.state.model) else []
    return Quantized(after.model, (*found, *recurrent), tuple(notes), choices)


def _static(
    job: QuantizeJob, before: Analysis, after: Analysis, placement: Placement, pairs: list[tuple[Layer, Layer]]
) -> list[LayerNoise]:
    """Quantize what a placement says, in place."""
    context, data = job.context, job.samples
    if not pairs:
        return []
    if data is None:
        raise UsageError("int8 needs inputs to see how large values get: give --data, or quantize to int8-dynamic")
    grids = find_grids(
        before,
        placement,
        data,
        method=job.options.ranges,
        signed=not job.processor.unsigned,
        providers=context.execution,
        progress=context.progress,
    )
    editor = Editor(after.model)
    made = insert_pairs(editor, placement, grids)
    walk = LayerWalk(
        before,
        after,
        made,
        grids,
        job.weight_bits,
        context.execution,
        seed=context.seed,
        fixed=set(job.state.zeros),
        progress=context.progress,
    )
    if job.fits:
        feeds = some_batches((batch.feed for batch in data.batches()), _SAMPLES)
        weights = walk.run(pairs, feeds)
        noise = walk.noise
    else:
        weights = [round_nearest(layer, job.weight_bits, grids[counterpart.x].scale) for counterpart, layer in pairs]
        noise = [
            LayerNoise(
                each.name, each.node.op_type, job.weight_bits, seen=grids[each.x].seen, covered=grids[each.x].covered
            )
            for each, _ in pairs
        ]
    stored: dict[str, ir.Value] = {}
    for (counterpart, layer), each in zip(pairs, weights, strict=True):
        store_bias(editor, layer, each, grids[counterpart.x].scale)
        store_weights(editor, layer, each, stored)
    return noise
