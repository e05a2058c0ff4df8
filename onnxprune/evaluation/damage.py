"""When a model counts as fallen apart, and the sentence that says so.

It fell apart where the first of these that could be measured does not hold:

- with labels, the metric keeps nine tenths of its value: accuracy 99.6% may come down to 89.6%;
- with data, a classifier agrees with the original on eight of ten samples: ResNet-20 (accuracy 87.2%) at an agreement
  of 0.84 kept 93% of its accuracy;
- else the output explains seven tenths of the variance of the original's: the error's power is at most 0.3 of it. Where
  the output does not vary, the SNR is at least 5.2 dB, which is the same share of its power.

Made-up inputs are judged by the last of these alone: they rarely fall into a class clearly, so they prove little.
Of 64 cuts of the digits models and ResNet-20 by `--criterion group-l1` without data, at ratios of 0.05 to 0.5 with and
without `--recover fold`, 37 kept less than nine tenths of their accuracy. 34 of these were called; the other three, of
ResNet-20 without recovery, had lost 68% to 87%. Of the 27 that kept more, three were called, which had lost 4% to 9%.
"""

from __future__ import annotations

from math import isinf, isnan

from onnxprune.evaluation.quality import MADE_UP, Quality, QualityScore

KEPT, AGREED, EXPLAINED, DECIBEL = 0.9, 0.8, 0.7, 5.2

_TRAIN = "or train it (a recipe with the step train)"
_WITHOUT_DATA = f"give samples to fit it to (--data), remove less (--target macs=0.8), {_TRAIN}"
_WITH_DATA = f"remove less (--target macs=0.8), give more samples, {_TRAIN}"
# For who compares two files, and fits nothing.
_COMPARED = "recover it (onnxprune recover), train it (onnxprune train), or remove less of the original"
_COMPARED_WITHOUT_DATA = f"see what it does on real samples (--data); then {_COMPARED}"


def damage_of(quality: Quality, *, data: bool, compared: bool = False) -> str:
    """The damage and its remedy, in one sentence without an end; empty for a model that is well, or not measured.

    Args:
        quality: what was measured.
        data: the run had samples to fit to.
        compared: the run only compared two files.
    """
    evidence = _evidence(quality)
    if not evidence:
        return ""
    advice = {
        (False, False): _WITHOUT_DATA,
        (False, True): _WITH_DATA,
        (True, False): _COMPARED_WITHOUT_DATA,
        (True, True): _COMPARED,
    }[compared, data]
    return f"the model fell apart: {evidence} on {quality.on}; {advice}"


def _evidence(quality: Quality) -> str:
    """The first test that fails, in words; empty where the first that can be made holds."""
    scores = {score.metric: score for score in quality.scores}
    labelled = next((score for score in quality.scores if score.labels), None)
    if labelled is not None and labelled.higher_is_better and labelled.before > 0 and not isinf(labelled.before):
        before, after = (labelled.shown(value) for value in (labelled.before, labelled.after))
        return "" if labelled.after >= KEPT * labelled.before else f"{labelled.metric} {before} -> {after}"
    agreement = scores.get("agreement")
    if agreement is not None and quality.inputs != MADE_UP:
        fell = not agreement.after >= AGREED
        return f"it agrees with the original in {agreement.shown(agreement.after)}" if fell else ""
    return _unlike(quality, scores.get("snr"))


def _unlike(quality: Quality, snr: QualityScore | None) -> str:
    if not isnan(quality.explained):
        fell = quality.explained < EXPLAINED
        share = f"{max(quality.explained, 0):.0%}"
        return f"its output explains {share} of the variance of the original's" if fell else ""
    if snr is None or snr.after >= DECIBEL:
        return ""
    return f"its output has an SNR of {snr.shown(snr.after)}"
