"""Shell completion: the scripts, and what the shell is offered."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from onnxprune.cli import main


def completed(*words: str) -> list[str]:
    """What is offered for the last word."""
    *args, incomplete = words
    items = ShellComplete(main, {}, "onnxprune", "_ONNXPRUNE_COMPLETE").get_completions(args, incomplete)
    return [item.value for item in items]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_script_and_how_to_install_it(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert result.exit_code == 0
    assert f"onnxprune completion {shell}" in result.stdout.splitlines()[0]
    assert f"_ONNXPRUNE_COMPLETE={shell}_complete" in result.stdout
    assert CliRunner().invoke(main, ["completion"], env={"SHELL": f"/bin/{shell}"}).stdout == result.stdout


@pytest.mark.parametrize(("args", "shell"), [(["tcsh"], ""), ([], "/bin/tcsh"), ([], "")])
def test_other_shells(args: list[str], shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", *args], env={"SHELL": shell})
    assert result.exit_code == 2
    assert "bash" in result.stderr
    assert result.stderr.count("\n") == 1


def test_commands_options_and_names() -> None:
    assert completed("com") == ["completion", "compress"]
    assert "--criterion" in completed("compress", "--cri")
    assert completed("compress", "--criterion", "l") == [
        name for name in completed("compress", "--criterion", "") if name.startswith("l")
    ]
    assert {"l1", "l2"} <= set(completed("score", "--criterion", "l"))
    assert "l1*0.5+random" in completed("compress", "--criterion", "l1*0.5+ran")
    assert completed("compress", "--scope", "unif") == ["uniform"]
    assert "accuracy" in completed("benchmark", "--metric", "acc")
    assert completed("benchmark", "--providers", "cp") == ["cpu"]
    assert completed("benchmark", "--providers", "cuda,cp") == ["cuda,cpu"]


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    """In a real bash, with the command as it is installed."""
    command = tmp_path / "onnxprune"
    command.write_text(
        f"#!{sys.executable}\nimport sys\nfrom onnxprune.cli import main\nsys.argv[0] = 'onnxprune'\nmain()\n"
    )
    command.chmod(0o755)
    script = CliRunner().invoke(main, ["completion", "bash"]).stdout
    lines = (
        script,
        "COMP_WORDS=(onnxprune benc) COMP_CWORD=1",
        "_onnxprune_completion onnxprune",
        'echo "${COMPREPLY[@]}"',
    )
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", "\n".join(lines)], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.strip() == "benchmark"
