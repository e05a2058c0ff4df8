"""The differentiable executor: parameters under their names, both modes, bodies and functions, and the way back."""

from __future__ import annotations

import copy
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import pytest
import torch

from onnxprune.errors import ModelError, UsageError
from onnxprune.model.check import check_model
from onnxprune.model.file import open_model, save
from onnxprune.runtime.session import Session
from onnxprune.runtime.torch.module import TorchModel
from onnxprune.runtime.torch.ops.base import TABLE, torch_op
from tests.conftest import Build, forgotten

Array = npt.NDArray[Any]

PERCEPTRON = """
    net (float[batch, 4] x) => (float[batch, 3] y)
    <float[4, 8] w, float[8, 3] v, int64[1] axes = {1}>
    { h = MatMul(x, w)  r = Relu(h)  y = MatMul(r, v) }
"""


def normal(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def agrees(path: Path, feed: dict[str, Array], tolerance: float = 1e-5) -> TorchModel:
    """The torch module of a file, whose outputs are those of ONNX Runtime."""
    module = TorchModel(open_model(path))
    with torch.no_grad():
        found = module(feed)
    for name, wanted in Session(path).run(feed).items():
        np.testing.assert_allclose(found[name].numpy(), wanted, rtol=tolerance, atol=tolerance)
    return module


def test_every_float_initializer_is_one_parameter_under_its_name(build: Build) -> None:
    module = TorchModel(open_model(build(PERCEPTRON)))
    assert list(module.weights) == ["w", "v"]
    assert all(isinstance(weight, torch.nn.Parameter) and weight.requires_grad for weight in module.weights.values())
    assert {id(weight) for weight in module.weights.values()} == {id(weight) for weight in module.parameters()}
    assert module.inputs == ["x"]
    assert module.outputs == ["y"]


def test_names_that_torch_does_not_allow_are_kept(build: Build) -> None:
    path = build("net (float[2, 4] x) => (float[2, 4] y) <float[4] a> { t = Add(x, a)  y = Identity(t) }")
    model = open_model(path)
    for name in ("layer1.0.conv/weight", "training", "weights", "forward"):
        model.graph.initializers["a"].name = name
        assert list(TorchModel(model).weights) == [name]
        model.graph.initializers[name].name = "a"


def test_a_shared_weight_is_one_parameter_whose_gradients_add_up(build: Build) -> None:
    path = build("net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w> { h = MatMul(x, w)  y = MatMul(h, w) }")
    module = agrees(path, {"x": normal(2, 4)})
    x, w = torch.from_numpy(normal(2, 4)), module.weights["w"].detach().clone().requires_grad_()
    (x @ w @ w).sum().backward()
    module({"x": x})["y"].sum().backward()
    torch.testing.assert_close(module.weights["w"].grad, w.grad)
    assert len(list(module.parameters())) == 1


def test_inner_values_are_given_back_when_asked_for(build: Build) -> None:
    module = TorchModel(open_model(build(PERCEPTRON)))
    x = torch.from_numpy(normal(2, 4))
    found = module({"x": x}, keep=["h", "x", "w"])
    assert list(found) == ["y", "h", "x", "w"]
    torch.testing.assert_close(found["h"], x @ module.weights["w"])
    (gradient,) = torch.autograd.grad(found["y"].sum(), found["h"])
    assert gradient.shape == (2, 8)
    with pytest.raises(UsageError, match="computes no value 'hh'; did you mean 'h'"):
        module({"x": x}, keep=["hh"])


def test_values_are_let_go_after_their_last_use(build: Build) -> None:
    module = TorchModel(open_model(build(PERCEPTRON)))
    env: dict[str, Any] = {"x": torch.from_numpy(normal(2, 4)), **module.weights}
    module._program.run(env)
    assert set(env) == {"x", "w", "v", "y"}


def test_values_known_beforehand_are_computed_once_and_can_be_asked_for(build: Build) -> None:
    path = build("""
        net (float[batch, 6] x) => (float[batch, 3, 2] y) <int64[1] a = {0}, int64[2] b = {3, 2}>
        { shape = Concat<axis=0>(a, b)  y = Reshape(x, shape) }
    """)
    module = agrees(path, {"x": normal(5, 6)})
    assert [step.op.op_type for step in module._program.steps] == ["Reshape"]
    assert module({"x": normal(5, 6)}, keep=["shape"])["shape"].tolist() == [0, 3, 2]


def test_sizes_stay_exact_integers(build: Build) -> None:
    path = build("""
        net (float[batch, length, 6] x) => (float[a, b] y) <int64[1] two = {2}, int64[1] one = {1}, int64[1] zero = {0}>
        {
            s = Shape(x)  n = Gather(s, zero)  l = Gather(s, one)  m = Mul(n, l)  half = Div(m, two)
            t = Concat<axis=0>(half, two)  u = Concat<axis=0>(t, two)  rest = Constant<value_ints = [-1]>()
            shape = Concat<axis=0>(half, rest)  y = Reshape(x, shape)
        }
    """)
    module = agrees(path, {"x": normal(2, 3, 6)})
    assert module({"x": normal(4, 7, 6)})["y"].shape == (14, 12)


def test_bodies_read_the_values_around_them(build: Build) -> None:
    path = build("""
        net (float[2, 3] x, int64[] n) => (float[2, 3] y, float[k, 2, 3] all) <float[3] w, bool yes = {1}>
        {
            s = ReduceSum<keepdims=0>(x)
            zero = Constant<value_float = 0.0>()
            up = Greater(s, zero)
            z = If (up) <
                then_branch = a () => (float[2, 3] p) <float[3] inner = {1.0, 2.0, 3.0}> { p = Add(x, inner) },
                else_branch = b () => (float[2, 3] q) <float[3] inner = {3.0, 4.0, 5.0}> { q = Mul(x, inner) }
            >
            y, all = Loop (n, yes, z) <
                body = c (int64 i, bool before, float[2, 3] state) => (bool after, float[2, 3] next, float[2, 3] out)
                { after = Identity(before)  next = Mul(state, w)  out = Add(next, x) }
            >
        }
    """)
    module = agrees(path, {"x": normal(2, 3), "n": np.array(3)})
    agrees(path, {"x": -np.abs(normal(2, 3)), "n": np.array(2)})
    assert list(module.weights) == ["w", "inner", "inner'"]
    module({"x": normal(2, 3) + 9, "n": np.array(3)})["all"].sum().backward()
    assert module.weights["w"].grad is not None
    assert module.weights["inner"].grad is not None
    assert module.weights["inner'"].grad is None


def test_weights_inside_bodies_are_written_back_where_they_were(build: Build, tmp_path: Path) -> None:
    path = build("""
        net (float[2, 3] x) => (float[2, 3] y)
        {
            s = ReduceSum<keepdims = 0>(x)  zero = Constant<value_float = 0.0>()  up = Greater(s, zero)
            y = If (up) <
                then_branch = a () => (float[2, 3] p) <float[3] inner = {1.0, 2.0, 3.0}> { p = Add(x, inner) },
                else_branch = b () => (float[2, 3] q) <float[3] inner = {3.0, 4.0, 5.0}> { q = Mul(x, inner) }
            >
        }
    """)
    model = open_model(path)
    module = TorchModel(model)
    with torch.no_grad():
        module.weights["inner"] += 10
        module.weights["inner'"] += 20
    module.write_back(model)
    save(model, tmp_path / "written.onnx")
    x = np.abs(normal(2, 3))
    for sign, expected in ((1, x + np.array([11, 12, 13])), (-1, -x * np.array([23, 24, 25]))):
        agrees(tmp_path / "written.onnx", {"x": sign * x})
        np.testing.assert_allclose(Session(tmp_path / "written.onnx").run({"x": sign * x})["y"], expected, rtol=1e-6)


def test_functions_of_the_model_are_run(build: Build) -> None:
    path = build(
        "net (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w> { h = local.twice<factor = 3.0>(x, w)  y = Relu(h) }",
        opsets={"local": 1},
        functions="""
            <domain: "local", opset_import: ["" : 17]>
            twice <factor: float = 2.0> (a, b) => (c)
            { f = Constant<value_float: float = @factor>()  h = MatMul(a, b)  s = Mul(h, f)  c = MatMul(s, b) }
        """,
    )
    module = agrees(path, {"x": normal(2, 4)}, 1e-4)
    assert list(module.weights) == ["w"]


def test_an_operator_without_an_implementation_is_run_by_its_definition(build: Build) -> None:
    with_body = ("MeanVarianceNormalization", "LayerNormalization")  # the same for all types, and made for some
    with forgotten(TABLE):
        for name in with_body:
            del TABLE._members["", name]
        agrees(build("net (float[2, 3, 4, 5] x) => (float[2, 3, 4, 5] y) { y = MeanVarianceNormalization(x) }"),
               {"x": normal(2, 3, 4, 5)})  # fmt: skip
        agrees(build("net (float[2, 5] x) => (float[2, 5] y) <float[5] w> { y = LayerNormalization(x, w) }"),
               {"x": normal(2, 5)})  # fmt: skip


def test_operators_without_any_are_named(build: Build) -> None:
    path = build(
        "net (float[2] x) => (float[2] y) { a = other.Magic(x)  b = other.Magic(a)  y = Relu(b) }", opsets={"other": 1}
    )
    with pytest.raises(ModelError, match=r"torch has no implementation of: other.Magic \(2\)"):
        TorchModel(open_model(path))


def test_an_operator_is_registered_once() -> None:
    with pytest.raises(ValueError, match="torch operator 'Relu' is registered twice"):
        torch_op("Relu")(lambda _, x: x)


def test_windows_of_one_entry_are_strided_as_others_are(build: Build) -> None:
    """In both orders of memory: torch's own strided kernel writes outside of its memory where channels are last."""
    path = build("""
        net (float[batch, 5, 9, 8] x) => (float[batch, 11, h, w] y) <float[11, 5, 1, 1] k, float[11] b>
        { y = Conv<strides = [2, 3], pads = [1, 0, 0, 1]>(x, k, b) }
    """)
    x = normal(3, 5, 9, 8)
    model = agrees(path, {"x": x})
    kernel = model.weights["k"]
    grads = []
    for order in (torch.contiguous_format, torch.channels_last):
        kernel.grad = None
        model({"x": torch.from_numpy(x).contiguous(memory_format=order)})["y"].square().sum().backward()
        assert kernel.grad is not None
        grads.append(kernel.grad.clone())
    own = kernel.detach().clone().requires_grad_()
    padded = torch.nn.functional.pad(torch.from_numpy(x), (0, 1, 1, 0))
    torch.nn.functional.conv2d(padded, own, model.weights["b"].detach(), (2, 3)).square().sum().backward()
    for grad in grads:
        torch.testing.assert_close(grad, own.grad, rtol=1e-4, atol=1e-4)


def test_a_node_that_fails_is_named(build: Build) -> None:
    path = build("net (float[a, b] x) => (float[a, c] y) <float[4, 3] w> { y = MatMul(x, w) }")
    model = open_model(path)
    model.graph[0].name = "projection"
    with pytest.raises(ModelError, match="torch cannot run MatMul 'projection': mat1 and mat2"):
        TorchModel(model)({"x": normal(2, 5)})


def test_what_is_fed_is_checked(build: Build) -> None:
    module = TorchModel(open_model(build(PERCEPTRON)))
    with pytest.raises(UsageError, match="also needs the input 'x'; its inputs are x"):
        module({})
    with pytest.raises(UsageError, match="has no input 'xs'; did you mean 'x'"):
        module({"x": normal(2, 4), "xs": normal(2, 4)})
    with pytest.raises(UsageError, match="unknown precision 'half'"):
        TorchModel(open_model(build(PERCEPTRON)), precision="half")


def test_initializers_that_are_inputs_are_defaults(build: Build) -> None:
    def as_input(model: onnx.ModelProto) -> None:
        for weight in model.graph.initializer:
            shape = list(weight.dims)
            model.graph.input.append(onnx.helper.make_tensor_value_info(weight.name, weight.data_type, shape))

    text = """net (float[2, 6] x) => (float[a, b] y) <float[6] w, int64[2] s = {3, 4}>
              { h = Mul(x, w)  y = Reshape(h, s) }"""
    path = build(text, edit=as_input)
    module = agrees(path, {"x": normal(2, 6)})
    assert module.inputs == ["x"]
    assert list(module.weights) == ["w"]
    fed = {"x": normal(2, 6), "w": normal(6, seed=1), "s": np.array([6, 2])}
    agrees(path, fed)


NORM = """
    net (float[8, 3, 4] x) => (float[8, 3, 4] y) <float[3] s, float[3] b, float[3] mean, float[3] var>
    { y = BatchNormalization<momentum = 0.75>(x, s, b, mean, var) }
"""


def test_batch_normalization_in_both_modes(build: Build) -> None:
    module = agrees(build(NORM, var=[1.0, 2.0, 3.0]), {"x": normal(8, 3, 4)})
    assert list(module.weights) == ["s", "b"]
    assert list(module.statistics) == ["mean", "var"]
    assert not module.training
    x = torch.from_numpy(normal(8, 3, 4) * 3 + 1)
    before = {name: value.clone() for name, value in module.statistics.items()}
    y = module.train()({"x": x})["y"]
    plain = (x - x.mean((0, 2), keepdim=True)) / (x.var((0, 2), correction=0, keepdim=True) + 1e-5).sqrt()
    expected = plain * module.weights["s"].reshape(-1, 1) + module.weights["b"].reshape(-1, 1)
    torch.testing.assert_close(y, expected)
    due = {"mean": x.mean((0, 2)), "var": x.var((0, 2))}  # unbiased, as torch moves it
    for name, value in module.statistics.items():
        torch.testing.assert_close(value, 0.75 * before[name] + 0.25 * due[name])
    y.square().sum().backward()
    assert module.weights["s"].grad is not None


def test_statistics_that_others_read_stay_as_they_are(build: Build) -> None:
    path = build("""
        net (float[8, 3] x) => (float[8, 3] y) <float[3] s, float[3] b, float[3] mean, float[3] var>
        { h = BatchNormalization(x, s, b, mean, var)  y = BatchNormalization(h, s, b, mean, var) }
    """, var=[1.0, 2.0, 3.0])  # fmt: skip
    module = TorchModel(open_model(path)).train()
    before = module.statistics["mean"].clone()
    module({"x": normal(8, 3)})
    torch.testing.assert_close(module.statistics["mean"], before)


def test_what_was_trained_goes_back_into_the_file(build: Build, tmp_path: Path) -> None:
    path = build(NORM, var=[1.0, 2.0, 3.0])
    before = path.read_bytes()
    model = open_model(path)
    module = TorchModel(model).train()
    module({"x": normal(8, 3, 4)})["y"].square().sum().backward()
    with torch.no_grad():
        for weight in module.weights.values():
            weight -= 0.1 * weight.grad
    module.eval().write_back(model)
    save(model, tmp_path / "trained.onnx")
    check_model(tmp_path / "trained.onnx")
    again = agrees(tmp_path / "trained.onnx", {"x": normal(8, 3, 4)})
    assert list(again.weights) == ["s", "b"]
    torch.testing.assert_close(again.weights["s"], module.weights["s"])
    torch.testing.assert_close(again.statistics["var"], module.statistics["var"])
    assert path.read_bytes() == before


def test_writing_back_what_does_not_fit(build: Build) -> None:
    module = TorchModel(open_model(build(PERCEPTRON)))
    other = open_model(build("net (float[2, 4] x) => (float[2, 8] y) <float[4, 8] w> { y = MatMul(x, w) }", name="b"))
    with pytest.raises(ModelError, match="the model has no weight 'v' to write to"):
        module.write_back(other)
    wide = open_model(build(PERCEPTRON.replace("8", "9"), name="c"))
    before = wide.graph.initializers["w"].const_value
    with pytest.raises(ModelError, match=r"'w' has shape \(4, 8\) here and \(4, 9\) in the model"):
        module.write_back(wide)
    assert wide.graph.initializers["w"].const_value is before


HALF = PERCEPTRON.replace("float[", "float16[")


def test_half_precision_is_computed_in_full_and_stored_as_before(build: Build, tmp_path: Path) -> None:
    model = open_model(build(HALF))
    x = normal(2, 4).astype(np.float16)
    module = TorchModel(model)
    assert module({"x": x})["y"].dtype == torch.float32
    assert TorchModel(model, precision="stored")({"x": x})["y"].dtype == torch.float16
    assert TorchModel(model, precision="float64")({"x": x})["y"].dtype == torch.float64
    with torch.no_grad():
        module.weights["w"] += 1
    module.write_back(model)
    assert model.graph.initializers["w"].dtype == ir.DataType.FLOAT16
    save(model, tmp_path / "half.onnx")
    wanted = Session(tmp_path / "half.onnx").run({"x": x})["y"]
    np.testing.assert_allclose(module({"x": x})["y"].detach().numpy(), wanted, rtol=1e-2, atol=1e-2)


def test_bfloat16_weights_survive_the_round_trip(build: Build) -> None:
    model = open_model(build(PERCEPTRON.replace("float[", "bfloat16[")))
    before = model.graph.initializers["w"].const_value.numpy().copy()
    TorchModel(model).write_back(model)
    tensor = model.graph.initializers["w"].const_value
    assert tensor.dtype == ir.DataType.BFLOAT16
    np.testing.assert_array_equal(tensor.numpy(), before)


def test_copies_are_independent(build: Build) -> None:
    module = TorchModel(open_model(build(NORM, var=[1.0, 2.0, 3.0])))
    other = copy.deepcopy(module).train()
    other({"x": normal(8, 3, 4)})
    assert not module.training
    assert not torch.equal(other.statistics["mean"], module.statistics["mean"])
    assert other.state_dict().keys() == module.state_dict().keys()


def test_a_type_conversion_reaches_everything(build: Build) -> None:
    """`.to()` is how a module moves to a GPU too: nothing may be held outside of parameters and buffers."""
    path = build("""
        net (float[2, 4] x) => (float[2, 4] y) <float[4] w>
        { c = Constant<value = float[4] {1, 2, 3, 4}>()  h = Mul(x, w)  y = Add(h, c) }
    """)
    module = TorchModel(open_model(path)).to(torch.float64)
    assert module({"x": normal(2, 4).astype(np.float64)})["y"].dtype == torch.float64


@pytest.mark.parametrize("name", ["resnet", "transformer", "lstm"])
def test_trained_models_agree_and_come_back(name: str, digits: dict[str, Path], tmp_path: Path) -> None:
    model = open_model(digits[name])
    session = Session(digits[name])
    feed = {
        port.name: normal(*[size if isinstance(size, int) else 3 for size in port.shape]) for port in session.inputs
    }
    module = agrees(digits[name], feed, 1e-4)
    with torch.no_grad():
        for weight in module.weights.values():
            weight *= 1.01
    module.write_back(model)
    save(model, tmp_path / "back.onnx")
    agrees(tmp_path / "back.onnx", feed, 1e-4)
    assert set(open_model(tmp_path / "back.onnx").graph.initializers) == set(
        open_model(digits[name]).graph.initializers
    )


@pytest.mark.parametrize("module", ["module", "losses"])
def test_without_torch_it_is_said_what_to_install(module: str) -> None:
    code = (
        "import sys; sys.modules['torch'] = None\n"
        f"try: import onnxprune.runtime.torch.{module}\n"
        "except Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (
        "MissingExtraError torch is not installed; install it with: pip install 'onnxprune[torch]'"
    )


@pytest.mark.slow
def test_import_changes_no_global_state() -> None:
    code = (
        "import torch; a = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype();"
        "import onnxprune.runtime.torch.module, onnxprune.runtime.torch.ops as ops; ops.known();"
        "assert a == (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype())"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


RESHAPED = """
    net (float[batch, 6] x) => (float[a, b] y) <float[2] w, int64[1] first = {0}, int64[1] rest = {-1, 2}>
    {
        s = Shape(x)  n = Gather(s, first)  shape = Concat<axis = 0>(n, rest)
        split = Reshape(x, shape)  scaled = Mul(split, w)  flat = Flatten(scaled)
        ones = ConstantOfShape(n)  mask = Unsqueeze(ones, last)  y = Add(flat, mask)
    }
""".replace("int64[1] rest", "int64[2] rest").replace("first = {0}", "first = {0}, int64[1] last = {1}")


def test_what_follows_from_the_shapes_is_computed_once_for_each_of_them(build: Build) -> None:
    module = TorchModel(open_model(build(RESHAPED)))
    full = [step.op.op_type for step in module._program.steps]
    assert "Shape" in full
    for batch in (2, 5, 2):
        x = normal(batch, 6, seed=batch)
        expected = (x.reshape(batch, 3, 2) * module.weights["w"].detach().numpy()).reshape(batch, 6)
        for _ in range(2):
            found = module({"x": x}, keep=["shape"])
            np.testing.assert_allclose(found["y"].detach().numpy(), expected, rtol=1e-6)
            assert found["shape"].tolist() == [batch, -1, 2]
    assert len(module._sized) == 2
    for sized in module._sized.values():
        assert [step.op.op_type for step in sized.program.steps] == ["Reshape", "Mul", "Flatten", "Add"]
    module.to(torch.float64)
    assert not module._sized


def test_a_first_run_in_inference_mode_leaves_nothing_that_cannot_be_differentiated(build: Build) -> None:
    path = build("""
        net (float[n, 3] x) => (float[n, 3] y) <float[3] w>
        { s = Shape(x)  ones = ConstantOfShape<value = float[1] {2.0}>(s)  h = Mul(x, w)  y = Mul(h, ones) }
    """)
    module = TorchModel(open_model(path))
    with torch.inference_mode():
        module({"x": normal(2, 3)})
    module({"x": normal(2, 3)})["y"].sum().backward()
    assert module.weights["w"].grad is not None


def test_sizes_that_depend_on_data_are_computed_every_time(build: Build) -> None:
    path = build("""
        net (float[n] x, int64[1] k) => (float[c] y, int64[1] count)
        <int64[1] one = {1}, int64[1] zero = {0}>
        {
            at = NonZero(x)  row = Squeeze(at, zero)  y = Gather(x, row)
            s = Shape(row)  t = Mul(s, one)  count = Add(t, k)
        }
    """)
    module = TorchModel(open_model(path))
    for count in (1, 3, 2):
        x = torch.zeros(4)
        x[:count] = 1
        found = module({"x": x, "k": torch.tensor([count])})
        assert found["count"].tolist() == [2 * count]
        assert found["y"].shape == (count,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet", "transformer"])
def test_compiled_models_are_one_graph(name: str, digits: dict[str, Path]) -> None:
    """After a run with the same shapes nothing of what exporters compute from them is left."""
    session = Session(digits[name])
    feed = {port.name: torch.from_numpy(normal(*[size if isinstance(size, int) else 3 for size in port.shape]))
            for port in session.inputs}  # fmt: skip
    module = TorchModel(open_model(digits[name]))
    expected = module(feed)
    compiled = torch.compile(module, backend="aot_eager", fullgraph=True)
    found = compiled(feed)
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
    sum(value.sum() for value in found.values()).backward()
    assert all(weight.grad is not None for weight in module.weights.values() if weight.ndim > 1)


@pytest.mark.slow
def test_a_model_compiled_to_machine_code(build: Build) -> None:
    if not shutil.which("g++"):
        pytest.skip("torch.compile needs a C++ compiler, g++ is not there")
    module = TorchModel(open_model(build(RESHAPED)))
    x = torch.from_numpy(normal(4, 6))
    expected = module({"x": x})["y"]
    torch.testing.assert_close(torch.compile(module)({"x": x})["y"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["hf.bert.ts17", "timm.gcvit_xxtiny.ts17", "tv.resnet18.ts17"])
def test_no_tensor_stays_behind_on_another_device(name: str, zoo: ModuleType) -> None:
    """With tensors that only claim to lie on a GPU: torch refuses to bring two devices together, as it does there."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    model = zoo.load(name)
    feed = {name: torch.from_numpy(value) for name, value in zoo.inputs(model, 0).items()}
    module = TorchModel(ir.from_proto(model))
    with torch.no_grad():
        module(feed)
        sized = dict(module._sized)  # what follows from the shapes is found by real numbers only
        with FakeTensorMode(allow_non_fake_inputs=True):
            for slot, weight in module._parameters.items():
                module._parameters[slot] = torch.nn.Parameter(_pretended(weight), requires_grad=False)
            for slot, buffer in module._buffers.items():
                module._buffers[slot] = _pretended(buffer)
            module._sized = sized
            found = module({name: _pretended(value) for name, value in feed.items()})
    assert {value.device.type for value in found.values()} == {"cuda"}


def _pretended(value: torch.Tensor) -> torch.Tensor:
    return torch.empty(value.shape, dtype=value.dtype, device="cuda")
