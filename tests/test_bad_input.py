"""Whatever goes wrong: one line that says what to do, the right exit code, the input untouched, nothing left behind."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from click.testing import CliRunner, Result

from onnxprune.cli import main
from onnxprune.errors import MissingExtraError
from onnxprune.evaluation import verify
from onnxprune.pipeline import run as pipeline
from tests.conftest import Build

GEMMS = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 400] w, float[400, 3] v> { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""
# The cut alone, which takes a second.
CUT = ("--ratio", "0.5", "--recover", "none")
NO_UNITS = "net (float[batch, 5] x) => (float[batch, 3] y) <float[5, 3] w> { y = MatMul(x, w) }"
CUSTOM = """
    net (float[batch, 5] x) => (float[batch, 3] y)
    <float[5, 8] w, float[8, 3] v> { h = MatMul(x, w)  k = MatMul(h, v)  y = acme.Secret(k) }
"""


def snapshot(folder: Path) -> dict[str, str]:
    """Every path below a folder with a hash of its content."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""
        for path in sorted(folder.rglob("*"))
    }


def assert_one_line(stderr: str, *said: str) -> None:
    assert stderr.startswith("onnxprune: ")
    assert stderr.count("\n") == 1, stderr
    assert stderr.endswith("\n")
    assert "Traceback" not in stderr
    for words in said:
        assert words in stderr


Fails = Callable[..., Result]


@pytest.fixture
def fails(tmp_path: Path) -> Fails:
    """`fails(code, *args, says=...)` runs a command in the folder `tmp_path` that must fail and leave it as it was."""

    def run(code: int, *args: object, says: str | tuple[str, ...] = ()) -> Result:
        before = snapshot(tmp_path)
        result = CliRunner().invoke(main, [str(arg) for arg in args])
        assert snapshot(tmp_path) == before
        assert_one_line(result.stderr, *((says,) if isinstance(says, str) else says))
        assert result.stdout == ""
        assert result.exit_code == code
        return result

    return run


@pytest.fixture
def model(digits: dict[str, Path], tmp_path: Path) -> Path:
    copy = tmp_path / "model.onnx"
    copy.write_bytes(digits["resnet"].read_bytes())
    return copy


# -- files that are not models


@pytest.mark.parametrize("command", ["compress", "inspect"])
@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ("does not exist", "check the path")),
        (b"", ("is empty", "export or download it again")),
        (b"hello, world\n" * 1000, ("is not an ONNX file", "export or download it again")),
        (b"\x08\x08", ("is not an ONNX model", "right file")),
        (bytes(range(256)) * 20, ("is not an ONNX file",)),
    ],
    ids=["missing", "empty", "text", "no-graph", "bytes"],
)
def test_not_a_model(fails: Fails, tmp_path: Path, command: str, content: bytes | None, says: tuple[str, ...]) -> None:
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    fails(1, command, path, says=("model.onnx", *says))


def test_a_folder(fails: Fails, tmp_path: Path) -> None:
    fails(1, "compress", tmp_path, says="is a folder; give the .onnx file inside it")


def test_a_device(fails: Fails) -> None:
    fails(1, "compress", "/dev/null", says="is not a file on disk")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable(fails: Fails, model: Path) -> None:
    model.chmod(0)
    fails(1, "compress", model, says="cannot read")


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
@pytest.mark.parametrize("eighths", range(1, 8))
def test_truncated(fails: Fails, digits: dict[str, Path], tmp_path: Path, name: str, eighths: int) -> None:
    whole = digits[name].read_bytes()
    (tmp_path / "model.onnx").write_bytes(whole[: len(whole) * eighths // 8])
    fails(
        1, "compress", tmp_path / "model.onnx", says="is not an ONNX file, or is truncated; export or download it again"
    )


def test_last_byte_missing(fails: Fails, model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1])
    fails(1, "compress", model, says="truncated")


@pytest.mark.parametrize("seed", range(24))
def test_damaged_bytes_give_a_model_or_one_line(digits: dict[str, Path], tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(digits[("resnet", "transformer", "lstm")[seed % 3]].read_bytes())
    reach = (4_000, 12_000, len(data))[seed % 3]  # the graph lies before the weights
    for _ in range(rng.choice((1, 2, 5, 20))):
        data[rng.randrange(reach)] = rng.randrange(256)
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    result = CliRunner().invoke(main, ["compress", str(path), "--recover", "none", "--ratio", "0.5"])
    assert path.read_bytes() == data
    if result.exit_code == 0:
        assert len(list(tmp_path.iterdir())) == 2
    else:
        assert result.exit_code == 1
        assert_one_line(result.stderr)
        assert "bug" not in result.stderr
        assert list(tmp_path.iterdir()) == [path]


def test_no_opset(fails: Fails, build: Build) -> None:
    path = build(GEMMS, edit=lambda proto: proto.ClearField("opset_import"))
    fails(1, "compress", path, says=("declares no opset", "export it again"))


def test_no_opset_as_found_in_the_wild(fails: Fails, shared: Path) -> None:
    fails(1, "compress", shared / "real" / "superres_no_opset.onnx", says="declares no opset")


# -- external data


@pytest.fixture
def external(build: Build, tmp_path: Path) -> Path:
    """A model with its weights in `weights.bin`, in a folder of its own."""
    proto = onnx.load(build(GEMMS, name="embedded"))
    (tmp_path / "folder").mkdir()
    path = tmp_path / "folder" / "model.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


def relocate(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for tensor in proto.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = location
    path.write_bytes(proto.SerializeToString())


def test_external_data_missing(fails: Fails, external: Path) -> None:
    external.with_name("weights.bin").unlink()
    fails(1, "compress", external, says=("'weights.bin' is missing", "put it beside the model"))


def test_external_data_truncated(fails: Fails, external: Path) -> None:
    data = external.with_name("weights.bin")
    data.write_bytes(data.read_bytes()[:-4])
    fails(1, "compress", external, says=("'weights.bin' is truncated", "copy it again"))


@pytest.mark.parametrize("way", ["parent", "absolute", "link"])
def test_external_data_outside_the_folder(fails: Fails, external: Path, tmp_path: Path, way: str) -> None:
    external.with_name("weights.bin").rename(tmp_path / "weights.bin")
    if way == "link":
        external.with_name("weights.bin").symlink_to(tmp_path / "weights.bin")
    else:
        relocate(external, {"parent": "../weights.bin", "absolute": str(tmp_path / "weights.bin")}[way])
    fails(1, "compress", external, says=("outside the model's folder", "copy the data file beside the model"))


def test_external_data_is_never_the_output(fails: Fails, external: Path) -> None:
    fails(2, "compress", external, "-o", external.with_name("weights.bin"), says="belongs to the input")
    external.with_name("weights.bin").rename(external.with_name("weights.data"))
    relocate(external, "weights.data")
    fails(2, "compress", external, "-o", external.with_name("weights"), says="belongs to the input")


# -- models that cannot be run or pruned


def test_operator_that_onnx_runtime_does_not_know(fails: Fails, build: Build) -> None:
    path = build(CUSTOM, opsets={"acme": 1})
    fails(
        1,
        "compress",
        path,
        says=("ONNX Runtime cannot load model.onnx", "acme:Secret", "make the model run here"),
    )


def test_node_that_reads_what_nobody_makes(fails: Fails, build: Build) -> None:
    path = build(GEMMS.replace("MatMul(r, v)", "MatMul(r, nowhere)"))
    fails(1, "compress", path, says="'nowhere'")


def test_shapes_that_do_not_fit(fails: Fails, build: Build) -> None:
    path = build(GEMMS.replace("float[400, 3] v", "float[401, 3] v"))
    fails(1, "compress", path, says="export it again")


@pytest.mark.parametrize("command", ["inspect", "compress", "compress --lossless"])
def test_a_convolution_of_no_groups(build: Build, command: str) -> None:
    """The checker lets it pass, and so does ONNX Runtime until it runs."""
    path = build(
        "net (float[1, 4, 5, 5] x) => (float[1, 3, 5, 5] y) <float[3, 4, 1, 1] w> { y = Conv<group = 0>(x, w) }"
    )
    name, *options = command.split()
    result = CliRunner().invoke(main, [name, str(path), *options])
    assert result.exit_code == (0 if name == "inspect" else 1)
    assert "bug" not in result.stderr


def test_nothing_to_prune(fails: Fails, build: Build) -> None:
    path = build(NO_UNITS)
    fails(1, "compress", path, says=("every dimension is frozen", "keeps its shape", f"see: onnxprune inspect {path}"))


def test_everything_is_excluded(fails: Fails, model: Path) -> None:
    fails(1, "compress", model, "--skip", "channels", says=("all 9 groups are excluded", "loosen"))


# -- wrong usage


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--ratio", "-0.1"], "ratio -0.1 is outside [0, 1)"),
        (["--ratio", "1"], "ratio 1 is outside [0, 1)"),
        (["--ratio", "1.5"], "ratio 1.5 is outside [0, 1)"),
        (["--ratio", "nan"], "ratio nan is outside [0, 1)"),
        (["--ratio", "abc"], "'abc' is not a valid float (see: onnxprune compress --help)"),
        (["--round-to", "0"], "round-to 0 is outside 1 or more"),
        (["--round-to", "-8"], "round-to -8 is outside 1 or more"),
        (["--round-to", "2.5"], "'2.5' is not a valid int"),
        (["--seed", "x"], "'x' is not a valid int"),
        (["--seed", "-1"], "seed -1 is outside 0 or more"),
        (["--criterion", "l3"], "unknown criterion 'l3'; did you mean 'l2'?"),
        (["--criterion", "taylor"], "unknown criterion 'taylor'; did you mean"),
        (["--jobs", "0"], "jobs 0 is outside 1 or more"),
        (["--scope", "globl"], "unknown scope 'globl'; did you mean 'global'?"),
        (
            ["--only", "chanels", "--recover", "none"],
            "nothing in this model matches 'chanels'; did you mean 'channels'?",
        ),
        (
            ["--only", "layer9.*", "--recover", "none"],
            "nothing in this model matches 'layer9.*'; for all names: onnxprune inspect",
        ),
        (["--skip", "layer9.*", "--recover", "none"], "nothing in this model matches 'layer9.*'"),
        (["--ration", "0.5"], "--ration"),
        (
            ["another.onnx", "third.onnx"],
            "third.onnx is not a folder, and several models are to be compressed",
        ),
        (["-o"], "'-o' requires an argument"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_options(fails: Fails, model: Path, options: list[str], says: str) -> None:
    fails(2, "compress", model, *options, says=says)


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (
            ["compres", "model.onnx"],
            ("there is no command 'compres'; did you mean 'compress'?", "see: onnxprune --help"),
        ),
        (["--frobnicate"], ("--frobnicate", "see: onnxprune --help")),
        (["compress"], ("Missing argument 'MODEL", "see: onnxprune compress --help")),
        (["apply", "model.onnx"], ("Missing argument 'PLAN'", "see: onnxprune apply --help")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_command_lines(fails: Fails, args: list[str], says: tuple[str, ...]) -> None:
    fails(2, *args, says=says)


# -- places that cannot be written


@pytest.mark.parametrize("option", ["-o", "--plan"])
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("model.onnx", "belongs to the input, which is never modified"),
        ("hard.onnx", "belongs to the input"),
        ("soft.onnx", "belongs to the input"),
        ("nowhere/out", "does not exist; create it first"),
        ("model.onnx/out", "does not exist; create it first"),
        ("/dev/null", "is not a file that can be replaced"),
    ],
    ids=lambda value: value.partition(" ")[0],
)
def test_bad_places(fails: Fails, model: Path, tmp_path: Path, option: str, place: str, says: str) -> None:
    (tmp_path / "hard.onnx").hardlink_to(model)
    (tmp_path / "soft.onnx").symlink_to(model)
    fails(2, "compress", model, option, tmp_path / place, says=says)


def test_a_folder_for_a_plan(fails: Fails, model: Path, tmp_path: Path) -> None:
    fails(2, "compress", model, "--plan", tmp_path, says="is a folder; name a file inside it")


def test_two_outputs_in_one_place(fails: Fails, model: Path, tmp_path: Path) -> None:
    both = ("--report", tmp_path / "y", "--markdown", tmp_path / "y")
    fails(2, "compress", model, *both, says=f"{tmp_path / 'y'} is named for two outputs")
    fails(2, "compress", model, "-o", tmp_path / "x", "--plan", tmp_path / "x", says="choose different names")


def test_name_too_long(fails: Fails, model: Path, tmp_path: Path) -> None:
    fails(1, "compress", model, "-o", tmp_path / ("x" * 300), says=("File name too long", "choose another output"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.parametrize("option", ["-o", "--plan"])
def test_folder_not_writable(fails: Fails, model: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "locked").mkdir(mode=0o555)
    fails(
        1, "compress", model, option, tmp_path / "locked" / "out", says=("Permission denied", "choose another output")
    )


@pytest.mark.parametrize("existing", [False, True])
def test_disk_full(fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch, existing: bool) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if existing:
        model.with_name("model.pruned.onnx").write_text("an earlier result")
    monkeypatch.setattr("onnxprune.model.protobuf.write_model", full)
    plan = model.with_name("plan.json")
    fails(1, "compress", model, *CUT, "--plan", plan, says=("No space left on device", "free some space"))


def test_file_size_limit(model: Path, tmp_path: Path) -> None:
    """A write that the operating system really stops, half-way through the file."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [sys.executable, "-m", "onnxprune", "compress", str(model), "--recover", "none", "--ratio", "0.5"]
    before = snapshot(tmp_path)
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert (done.returncode, done.stdout) == (1, "")
    assert_one_line(done.stderr, "File too large", "choose another output")
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("graph.dot", "must end in .graphml (GraphML) or .json"),
        ("nowhere/graph.json", "does not exist; create it first"),
        ("model.json", "belongs to the input"),
    ],
)
def test_bad_graph_files(fails: Fails, model: Path, tmp_path: Path, place: str, says: str) -> None:
    (tmp_path / "model.json").hardlink_to(model)
    fails(2, "inspect", model, "--graph", tmp_path / place, says=says)


# -- plans


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, ("cannot read the plan", "No such file")),
        (b"{", ("is not JSON",)),
        (b"\xff\xfe", ("is not text",)),
        (b"[" * 100_000, ("is not JSON",)),
        (b"[1]", ("is not a plan of onnxprune",)),
        (b'{"format": 1}', ("is not a plan of onnxprune",)),
        (b'{"format": 99, "groups": []}', ("a plan of format 99, this version reads format 1",)),
        (b'{"format": 1, "groups": [3]}', ("is not a complete plan",)),
        (
            b'{"format": 1, "groups": [{"group": "a", "kind": "b", "units": 1e999, "remove": []}]}',
            ("is not a complete",),
        ),
    ],
    ids=["missing", "json", "text", "deep", "list", "groups", "format", "entry", "infinite"],
)
def test_not_a_plan(fails: Fails, model: Path, tmp_path: Path, content: bytes | None, says: tuple[str, ...]) -> None:
    plan = tmp_path / "plan.json"
    if content is not None:
        plan.write_bytes(content)
    fails(1, "apply", model, plan, says=(str(plan), *says, "write one with: onnxprune compress MODEL --plan FILE"))


def test_plan_is_never_the_output(fails: Fails, model: Path, tmp_path: Path) -> None:
    pipeline.compress(model, ratio=0.5, recover="none").plan.save(tmp_path / "plan.json")
    fails(2, "apply", model, tmp_path / "plan.json", "-o", tmp_path / "plan.json", says="belongs to the input")


def test_plan_of_another_model(fails: Fails, model: Path, digits: dict[str, Path], tmp_path: Path) -> None:
    pipeline.compress(digits["lstm"], ratio=0.5, recover="none").plan.save(tmp_path / "plan.json")
    fails(1, "apply", model, tmp_path / "plan.json", says=("this model does not have", "is it for another"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"units": 17}, "has 16 units, the plan is for 17; is it for another model?"),
        ({"remove": [99]}, "the plan removes units that group"),
        ({"remove": [-1]}, "the plan removes units that group"),
        ({"remove": list(range(16))}, "removes every unit"),
    ],
)
def test_plan_that_does_not_fit(fails: Fails, model: Path, tmp_path: Path, change: dict[str, Any], says: str) -> None:
    data = json.loads(pipeline.compress(model, ratio=0.5, recover="none").plan.to_json())
    data["groups"][0].update(change)
    (tmp_path / "plan.json").write_text(json.dumps(data))
    fails(1, "apply", model, tmp_path / "plan.json", says=says)


# -- interruptions and bugs


@pytest.mark.parametrize(
    "place", ["evaluation.verify.verify", "evaluation.verify.run_original", "pipeline.opening.analyze_model"]
)
def test_ctrl_c(fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(f"onnxprune.{place}", interrupt)
    plan = model.with_name("plan.json")
    fails(130, "compress", model, *CUT, "--plan", plan, says="interrupted; nothing was written")


@pytest.mark.parametrize(
    ("sent", "code", "says"),
    [
        (signal.SIGINT, 130, "interrupted; nothing was written"),
        (signal.SIGTERM, 143, "terminated; nothing was written"),
    ],
)
def test_signal_in_a_shell(model: Path, tmp_path: Path, sent: signal.Signals, code: int, says: str) -> None:
    """A real signal, while the result lies beside its place and is being checked."""
    program = (  # a parent in the background may have left the signal ignored
        "import signal, time, onnxprune.evaluation.verify as v; from onnxprune.cli import main\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "v.verify = lambda *_, **__: (print('checking', flush=True), time.sleep(60))\n"
        f"main(['compress', {str(model)!r}, *{list(CUT)}])"
    )
    before = snapshot(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as run:
        assert run.stdout is not None
        assert run.stdout.readline() == "checking\n"
        assert len(snapshot(tmp_path)) > len(before)
        run.send_signal(sent)
        _, stderr = run.communicate(timeout=30)
    assert run.returncode == code
    assert_one_line(stderr, says)
    assert snapshot(tmp_path) == before


def test_an_import_that_ctrl_c_breaks_off_is_no_missing_package(
    fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As C code may do, which is told of the interrupt as a failure of its own."""

    def broken_off(*_: Any, **__: Any) -> None:
        try:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(10)
        except KeyboardInterrupt:
            raise MissingExtraError("onnxruntime", "cpu") from None

    monkeypatch.setattr("onnxprune.pipeline.opening.analyze_model", broken_off)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent in the background may ignore it
    try:
        fails(130, "compress", model, *CUT, says="interrupted; nothing was written")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_bug_is_one_line_and_a_traceback_on_request(
    fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("two\nlines")

    monkeypatch.setattr("onnxprune.steps.prune.decide.decide", broken)
    fails(1, "compress", model, *CUT, says=("unexpected ZeroDivisionError: two lines", "please report it", "-v"))
    verbose = CliRunner().invoke(main, ["compress", str(model), "--recover", "none", "--ratio", "0.5", "-v"])
    assert "Traceback" in verbose.stderr
    assert verbose.exit_code == 1


def test_out_of_memory_is_no_bug(fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def exhausted(*_: Any, **__: Any) -> None:
        raise MemoryError

    monkeypatch.setattr("onnxprune.steps.prune.decide.decide", exhausted)
    fails(1, "compress", model, *CUT, says="out of memory")


def test_a_result_that_fails_its_check_is_not_written(
    fails: Fails, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, *_: Any, **__: Any) -> None:
        assert path.exists()
        raise verify.VerificationError("output 'y' of the pruned model is not finite; nothing was written")

    monkeypatch.setattr(verify, "verify", refuse)
    fails(1, "compress", model, *CUT, says="nothing was written")
    model.with_name("model.pruned.onnx").write_text("an earlier result")
    fails(1, "compress", model, *CUT, says="nothing was written")


def test_errors_are_on_stderr_in_json_mode_too(fails: Fails, model: Path) -> None:
    fails(2, "compress", model, "--json", "--ratio", "2", says="outside")
