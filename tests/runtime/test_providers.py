"""Names of execution providers."""

from __future__ import annotations

import onnxruntime
import pytest

from onnxprune.errors import UsageError
from onnxprune.runtime.providers import CPU, available, choose_providers, short


@pytest.mark.parametrize("name", ["cpu", "CPU", "CPUExecutionProvider", "cpuexecutionprovider"])
def test_short_and_full_names(name: str) -> None:
    assert choose_providers([name]) == ([CPU], [])


def test_unknown_names_are_refused_with_a_suggestion_or_the_list() -> None:
    with pytest.raises(UsageError, match=r"unknown execution provider 'cdua'; did you mean 'cuda'\?"):
        choose_providers(["cdua"])
    with pytest.raises(UsageError, match=r"unknown execution provider 'zzzzzzz'; there are: .*cpu.*cuda"):
        choose_providers(["zzzzzzz"])


def test_what_is_not_installed_falls_back_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["AzureExecutionProvider", CPU])
    providers, notes = choose_providers(["cuda", "cpu", "azure"])
    assert providers == [CPU, "AzureExecutionProvider"]
    assert notes == ["CUDAExecutionProvider is not part of this ONNX Runtime (azure, cpu), so the CPU is used instead"]


def test_available_and_short() -> None:
    assert CPU in available()
    assert short("CUDAExecutionProvider") == "cuda"
