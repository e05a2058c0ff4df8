"""From a state to one with zeros: score, share out, choose, and fit what stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from onnxprune.analysis.copy import copy_analysis
from onnxprune.analysis.groups import Analysis
from onnxprune.analysis.sparse_patterns import Pattern, by_taps, parse_pattern
from onnxprune.analysis.weight_matrices import WeightMatrix, chosen_matrices, full_mask, weight_matrices
from onnxprune.dims import Mask
from onnxprune.errors import UsageError
from onnxprune.ops.base import Array
from onnxprune.passes.write_back import assign
from onnxprune.steps.base import Context
from onnxprune.steps.prune.schedule import ratio
from onnxprune.steps.recover.layerwise import LayerError, walk
from onnxprune.steps.recover.methods import batches_to_fit
from onnxprune.steps.recover.pairing import Pairing
from onnxprune.steps.sparsify.base import ALLOCATIONS, Sharing, WeightCriterion, WeightScoring
from onnxprune.steps.sparsify.inputs import input_covariances
from onnxprune.steps.sparsify.step import SPARSITY
from onnxprune.steps.sparsify.surgeon import SurgeonFit, choose, damped, solve_kept

if TYPE_CHECKING:
    from onnxprune.steps.sparsify.step import Sparsify
    from onnxprune.steps.state import State


@dataclass(frozen=True)
class Sparse:
    """A model with zeros.

    Attributes:
        analysis: of it.
        zeros: per initializer, entries that may be other than zero: bool, of its shape.
        numbers: for the record.
        notes: what a person should know.
    """

    analysis: Analysis
    zeros: Mapping[str, Mask]
    numbers: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class SparsifyJob:
    """Settings that the parts have in common.

    Attributes:
        state: what is made sparse; it stays as it is.
        options: how.
        context: samples, devices, seed.
        sparsity: the share of the weights that is to be zero.
    """

    state: State
    options: Sparsify
    context: Context
    sparsity: float

    def __post_init__(self) -> None:
        found, self.left = weight_matrices(self.state.analysis)
        self.pattern: Pattern = parse_pattern(self.options.pattern)
        self.criterion: WeightCriterion = self.options.scored_by(data=self.context.data is not None)
        chosen = chosen_matrices(found, self.options.sparsify_only, self.options.keep_dense)
        self.left |= {each.name: "asked to stay dense" for each in found if each not in chosen}
        self.matrices: list[WeightMatrix] = []
        for each in chosen:
            _, features, outputs = each.places().shape
            why = self.pattern.why_not(features // each.taps, outputs)
            if why:
                self.left[each.name] = why
            else:
                self.matrices.append(each)
        if not self.matrices:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.left.items())[:3])
            raise UsageError(f"no weight of this model can be sparsified{f' ({reasons})' if reasons else ''}")

    @property
    def allocation(self) -> str | None:
        """How sparsity is shared out; None where the pattern leaves no choice."""
        if self.pattern.fixed is not None:
            return None
        return self.options.sparsity_allocation or ("global" if self.criterion.comparable else "uniform")

    @property
    def update(self) -> str:
        """The parameters that are fitted: "none", "weights" or "biases", if not as the options say."""
        if self.options.update != "auto":
            return self.options.update
        return "none" if self.context.data is None else "weights" if self.criterion.updates else "biases"


def sparsify_state(state: State, options: Sparsify, context: Context) -> Sparse:
    """The state's model with zeros; in a loop, as many as the round is to have."""
    whole = SPARSITY if options.sparsity is None else options.sparsity
    sparsity = ratio(whole, context.loop.done, context.loop.schedule)
    job = SparsifyJob(state, options, context, sparsity)
    if options.sparsity_drop is not None:
        from onnxprune.steps.sparsify.within import sparsest

        return sparsest(job, options.sparsity_drop)
    return sparsify_once(job)


def sparsify_once(job: SparsifyJob) -> Sparse:
    """The model with zeros."""
    zeros = {name: mask.copy() for name, mask in job.state.zeros.items()}
    shares, kept = _shared_out(job, zeros)
    if job.options.shuffle:
        kept = {key: _shuffled(job, key, mask) for key, mask in kept.items()}
    analysis = copy_analysis(job.state.analysis)
    errors: Sequence[LayerError] = ()
    in_fit = job.criterion.updates and job.update == "weights" and not job.options.shuffle
    chosen: dict[str, Mask] = {} if in_fit else kept
    if job.update != "none":
        errors = _fit(job, analysis, shares, chosen)
    for each in job.matrices:
        mask = zeros.setdefault(each.stored, full_mask(each))
        mask &= _spread(each, chosen.get(each.key, kept[each.key]))
    _set_zeros(analysis, zeros)
    return Sparse(analysis, zeros, _numbers(job, zeros, errors), _notes(job))


def _shuffled(job: SparsifyJob, key: str, kept: Mask) -> Mask:
    """As many entries of a matrix, drawn from the seed: those of before stay out."""
    matrix = next(each for each in job.matrices if each.key == key)
    before = job.state.zeros.get(matrix.stored)
    free = np.flatnonzero(np.ones(kept.size, np.bool_) if before is None else matrix.of(before).ravel())
    rng = np.random.default_rng([job.context.seed, job.matrices.index(matrix)])
    drawn = np.zeros(kept.size, np.bool_)
    drawn[free] = rng.permutation(kept.ravel()[free])
    return drawn.reshape(kept.shape)


def _spread(matrix: WeightMatrix, kept: Mask) -> Mask:
    mask = full_mask(matrix)
    matrix.put(mask, kept)
    return mask


def _shared_out(job: SparsifyJob, zeros: Mapping[str, Mask]) -> tuple[dict[str, float], dict[str, Mask]]:
    """The share of each weight that goes, and which entries stay by the scores of the criterion, by key.

    A criterion with rounds scores anew on what is left; the share that is left falls by the same factor in each.
    """
    kept_before = dict(zeros)
    rounds = job.criterion.rounds
    for number in range(1, rounds + 1):
        sparsity = 1 - (1 - job.sparsity) ** (number / rounds)
        scoring = WeightScoring(job.state.analysis, job.matrices, job.context, kept_before)
        scores = _scores(job, scoring, zeros)
        shares = _shares(job, scores, sparsity)
        kept = {each.key: _kept(job, each, scores[each.key], shares[each.key]) for each in job.matrices}
        if number < rounds:
            for each in job.matrices:
                kept_before[each.stored] = _spread(each, kept[each.key]) & zeros.get(each.stored, full_mask(each))
    return shares, kept


def _scores(job: SparsifyJob, scoring: WeightScoring, zeros: Mapping[str, Mask]) -> dict[str, Array]:
    """Per key, in the form of the matrix; what is zero already scores lowest."""
    found = job.criterion(scoring)
    scores = {}
    for each in job.matrices:
        own = np.nan_to_num(each.of(np.asarray(found[each.stored], np.float64)))
        if each.stored in scoring.kept or each.stored in zeros:
            before = each.of(scoring.kept.get(each.stored, zeros.get(each.stored, full_mask(each))))
            own = np.where(before, own, min(float(own.min()), 0.0) - 1.0)
        scores[each.key] = own
    return scores


def _shares(job: SparsifyJob, scores: Mapping[str, Array], sparsity: float) -> dict[str, float]:
    name = job.allocation
    if name is None:
        return dict.fromkeys(scores, job.pattern.fixed or 0.0)
    sharing = Sharing({each.key: each for each in job.matrices}, scores, sparsity)
    found = ALLOCATIONS[name].share(sharing)
    return {key: min(max(float(share), 0.0), 1.0) for key, share in found.items()}


def _kept(job: SparsifyJob, matrix: WeightMatrix, scores: Array, share: float) -> Mask:
    """Which entries of a matrix stay: the pattern sees features tap by tap."""
    order = by_taps(scores.shape[1], matrix.taps)
    pattern = job.pattern
    if job.criterion.by_output and job.options.pattern == "none":
        pattern = parse_pattern("row")
    kept = np.empty(scores.shape, np.bool_)
    kept[:, order] = pattern.keep(scores[:, order], share)
    return kept


def _fit(
    job: SparsifyJob, analysis: Analysis, shares: Mapping[str, float], chosen: dict[str, Mask]
) -> list[LayerError]:
    """Layer after layer, beside the model as it was; recurrent weights then, on the states that come out."""
    context = job.context
    assert context.samples is not None
    own = {each.key: shares[each.key] for each in job.matrices if each.layer is not None}
    allowed = {
        each.key: each.of(job.state.zeros[each.stored]) for each in job.matrices if each.stored in job.state.zeros
    }
    fit = SurgeonFit(own, job.pattern, allowed, chosen, weights=job.update == "weights")
    errors = walk(
        Pairing(job.state.analysis, analysis, {}),
        batches_to_fit(batch.feed for batch in context.samples.batches())[0],
        fit,
        rounds=1,
        seed=context.seed,
        providers=context.execution,
        progress=context.progress,
    )
    if job.update == "weights":
        _fit_recurrent(job, analysis, shares, allowed, chosen)
    return errors


def _fit_recurrent(
    job: SparsifyJob,
    analysis: Analysis,
    shares: Mapping[str, float],
    allowed: Mapping[str, Mask],
    chosen: dict[str, Mask],
) -> None:
    """Recurrent weights, by the second moments of the states that they multiply."""
    keys = {each.key for each in job.matrices if each.layer is None and each.x}
    found = [each for each in weight_matrices(analysis)[0] if each.key in keys]
    if not found:
        return
    moments = input_covariances(analysis, found, job.context)
    for each in found:
        start, array = each.of(each.array()), each.array()
        parts = []
        for number, (weights, hessian) in enumerate(zip(start, damped(moments[each.key]), strict=True)):
            kept = chosen[each.key][number] if each.key in chosen else None
            if kept is None:
                may = allowed.get(each.key, np.ones(start.shape, np.bool_))[number]
                _, kept = choose(weights, hessian, job.pattern, shares[each.key], may)
            parts.append((solve_kept(hessian, hessian @ weights, kept), kept))
        chosen[each.key] = np.stack([kept for _, kept in parts])
        each.put(array, np.stack([weights for weights, _ in parts]))
        _store(analysis, each.stored, array)


def _set_zeros(analysis: Analysis, zeros: Mapping[str, Mask]) -> None:
    """Set what has to be zero to zero, in place."""
    for name, mask in zeros.items():
        value = analysis.model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            _store(analysis, name, np.where(mask, value.const_value.numpy(), 0))


def _store(analysis: Analysis, name: str, array: Array) -> None:
    value = analysis.model.graph.initializers[name]
    assert value.const_value is not None
    assign(value, array, value.const_value.dtype)


def _numbers(job: SparsifyJob, zeros: Mapping[str, Mask], errors: Sequence[LayerError]) -> dict[str, Any]:
    after = {each.layer: each.after for each in errors}
    layers = []
    for each in job.matrices:
        kept = each.of(zeros[each.stored])
        layers.append({
            "layer": each.name,
            "weights": int(kept.size),
            "zeros": int((~kept).sum()),
            "error": after.get(each.name),
        })  # fmt: skip
    return {
        "pattern": job.options.pattern,
        "criterion": job.criterion.name,
        "allocation": job.allocation,
        "update": job.update,
        "layers": layers,
        "dense": [{"layer": name, "why": why} for name, why in job.left.items()],
    }


def _notes(job: SparsifyJob) -> tuple[str, ...]:
    found = []
    unasked = {name: why for name, why in job.left.items() if why != "asked to stay dense"}
    if unasked:
        some = "; ".join(f"{name}: {why}" for name, why in list(unasked.items())[:3])
        more = f"; and {len(unasked) - 3} more" if len(unasked) > 3 else ""
        found.append(f"layers that stay dense: {some}{more}")
    if job.context.data is None:
        found.append("made sparse without samples: with --data, a few hundred real ones, it does much better")
    return tuple(found)


def at(job: SparsifyJob, sparsity: float) -> SparsifyJob:
    """The same job with another sparsity."""
    return replace(job, sparsity=sparsity)
