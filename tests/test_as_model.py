"""A model as people have it at hand: a path, a ModelProto, its bytes, an ir.Model. All of them are the same model."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from onnxprune.analysis.inspect import inspect
from onnxprune.errors import ModelError, UsageError, WrongTypeError
from onnxprune.model.check import check_model
from onnxprune.model.file import as_model, digest, file_bytes, on_disk, open_model, runnable, save
from onnxprune.passes.remove_units import RemoveUnits
from tests.conftest import Build
from tests.test_model import SMALL, content

Form = Callable[[Path], Any]

FORMS: dict[str, Form] = {
    "text": str,
    "path": Path,
    "proto": onnx.load,
    "bytes": Path.read_bytes,
    "bytearray": lambda path: bytearray(path.read_bytes()),
    "ir": lambda path: ir.from_proto(onnx.load(path)),
    "ir from its file": ir.load,
    "ir with mapped weights": open_model,
}
IN_MEMORY = [name for name in FORMS if name not in ("text", "path")]
EVERY_FORM = pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)


@EVERY_FORM
def test_every_form_is_the_same_model(digits: dict[str, Path], form: Form) -> None:
    for path in digits.values():
        groups = [(group.id, group.kind, group.units) for group in inspect(form(path)).groups]
        assert groups == [(group.id, group.kind, group.units) for group in inspect(path).groups]
        assert groups


@EVERY_FORM
def test_weights_of_every_type_come_through(build: Build, tmp_path: Path, form: Form) -> None:
    def add(model: onnx.ModelProto) -> None:
        types, rng = onnx.TensorProto, np.random.default_rng(0)
        for dtype in (types.FLOAT16, types.BFLOAT16, types.DOUBLE, types.INT8, types.INT64, types.BOOL):
            values, name = rng.integers(0, 2, 3 * 700).tolist(), types.DataType.Name(dtype)
            model.graph.initializer.append(
                onnx.helper.make_tensor(name, dtype, [3, 700], np.array(values), raw=False)
                if dtype == types.BFLOAT16
                else onnx.numpy_helper.from_array(
                    np.array(values, onnx.helper.tensor_dtype_to_np_dtype(dtype)).reshape(3, 700), name
                )
            )
        packed = onnx.helper.make_tensor("packed", types.INT4, [7, 701], rng.integers(-8, 8, 7 * 701).tolist())
        raw = ir.from_proto(packed).tobytes()
        model.graph.initializer.append(types(name="raw4", data_type=types.INT4, dims=[7, 701], raw_data=raw))
        model.graph.initializer.append(onnx.helper.make_tensor("words", types.STRING, [2], [b"a", "é".encode()]))

    path = build(SMALL, edit=add, opset=21)
    save(as_model(form(path)), tmp_path / "out.onnx")
    assert content(tmp_path / "out.onnx") == content(path)
    assert len(content(path)[0]) == 3 + 6 + 2


def shrink(model: ir.Model) -> None:
    """Change a model as a cut does."""
    analysis = inspect(model)
    keep = {group.atom: np.arange(group.units) % 2 == 0 for group in analysis.groups}
    RemoveUnits(analysis, keep)(analysis.model)
    assert sum(value.const_value.nbytes for value in analysis.model.graph.initializers.values()) < file_bytes(model)  # type: ignore[union-attr]


def test_what_was_given_is_never_changed(digits: dict[str, Path]) -> None:
    path = digits["resnet"]
    proto, other = onnx.load(path), ir.from_proto(onnx.load(path))
    before = proto.SerializeToString(deterministic=True)
    for given, serialized in ((proto, lambda: proto), (other, lambda: ir.to_proto(other))):
        was = serialized().SerializeToString(deterministic=True)
        model = as_model(given)
        shrink(model)
        model.graph.name = "changed"
        next(iter(model.graph)).name = "changed"
        assert serialized().SerializeToString(deterministic=True) == was
    assert before == proto.SerializeToString(deterministic=True)


def test_a_proto_that_changes_later_changes_nothing(build: Build) -> None:
    proto = onnx.load(build(SMALL))
    model = as_model(proto)
    before = model.graph.initializers["w1"].const_value.numpy().copy()  # type: ignore[union-attr]
    for weight in proto.graph.initializer:
        weight.raw_data = bytes(len(weight.raw_data))
    assert before.any()
    assert (model.graph.initializers["w1"].const_value.numpy() == before).all()  # type: ignore[union-attr]


def test_sizes(build: Build) -> None:
    path = build(SMALL)
    written = path.stat().st_size
    for name, form in FORMS.items():
        assert file_bytes(as_model(form(path))) == pytest.approx(written, abs=300), name
    for name in ("proto", "bytes"):
        assert file_bytes(as_model(FORMS[name](path))) == pytest.approx(written, abs=20)


def test_a_cut_model_that_is_given_again_counts_as_it_is(build: Build) -> None:
    """What it was opened from is another model."""
    analysis = inspect(build(SMALL))
    RemoveUnits(analysis, {analysis.groups[0].atom: np.arange(80) < 8})(analysis.model)
    assert file_bytes(as_model(analysis.model)) < file_bytes(analysis.model) / 3
    assert digest(as_model(analysis.model)) != digest(analysis.model)


def test_digest(build: Build) -> None:
    path = build(SMALL)
    assert digest(open_model(path)) == hashlib.sha256(path.read_bytes()).hexdigest()
    own = digest(as_model(onnx.load(path)))
    assert own == digest(as_model(path.read_bytes())) == digest(as_model(open_model(path)))
    other = onnx.load(path)
    weight = onnx.numpy_helper.to_array(other.graph.initializer[0]).copy()
    weight[0, 0] += 1
    other.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight, "w1"))
    assert digest(as_model(other)) != own


def test_digest_takes_in_external_data(build: Build, tmp_path: Path) -> None:
    save(open_model(build(SMALL)), tmp_path / "out.onnx", external=True)
    files = [tmp_path / "out.onnx", tmp_path / "out.onnx.data"]
    whole = b"".join(file.read_bytes() for file in files)
    assert digest(open_model(files[0])) == hashlib.sha256(whole).hexdigest()
    assert file_bytes(open_model(files[0])) == len(whole)


@EVERY_FORM
def test_on_disk(build: Build, form: Form) -> None:
    path = build(SMALL)
    with on_disk(form(path)) as file:
        assert content(file) == content(path)
        temporary = file != path
    assert path.exists()
    assert not temporary or not file.exists()


def test_runnable(build: Build) -> None:
    path = build(SMALL)
    assert runnable(str(path)) == path
    for name in IN_MEMORY:
        assert isinstance(runnable(FORMS[name](path)), ir.Model)


def test_external_data_is_written_where_it_was_external(build: Build, tmp_path: Path) -> None:
    save(open_model(build(SMALL)), tmp_path / "out.onnx", external=True)
    given = ir.load(tmp_path / "out.onnx")
    model = as_model(given)
    assert model.meta["files"] == (tmp_path / "out.onnx.data",)
    with pytest.raises(UsageError, match="belongs to the input"):
        save(model, tmp_path / "out.onnx")
    save(model, tmp_path / "again.onnx")
    assert (tmp_path / "again.onnx.data").exists()


@pytest.mark.parametrize("given", [None, 3, [b"x"], {"model": 1}, np.zeros(3), onnx.GraphProto()])
def test_other_types_are_refused_with_what_is_accepted(given: Any) -> None:
    with pytest.raises(WrongTypeError, match=f"ModelProto, its bytes or .*, not as {type(given).__name__}") as caught:
        as_model(given)
    assert isinstance(caught.value, TypeError)
    assert isinstance(caught.value, UsageError)
    assert caught.value.exit_code == 2


def test_a_proto_with_external_data_is_refused(build: Build, tmp_path: Path) -> None:
    save(open_model(build(SMALL)), tmp_path / "out.onnx", external=True)
    proto = onnx.load(tmp_path / "out.onnx", load_external_data=False)
    with pytest.raises(ModelError, match=r"ModelProto that was given keeps weight 'w1' .* give the path") as caught:
        as_model(proto)
    assert "\n" not in str(caught.value)


def test_a_weight_whose_file_is_missing(build: Build, tmp_path: Path) -> None:
    save(open_model(build(SMALL)), tmp_path / "out.onnx", external=True)
    given = ir.load(tmp_path / "out.onnx")
    (tmp_path / "out.onnx.data").unlink()
    with pytest.raises(ModelError, match=r"has weights in .*out.onnx.data, which is missing"):
        as_model(given)


def damaged(edit: Callable[[onnx.ModelProto], object]) -> Callable[[onnx.ModelProto], onnx.ModelProto]:
    def apply(proto: onnx.ModelProto) -> onnx.ModelProto:
        edit(proto)
        return proto

    return apply


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (damaged(lambda proto: proto.graph.ClearField("node")), "holds no graph"),
        (damaged(lambda proto: proto.ClearField("graph")), "holds no graph"),
        (damaged(lambda proto: proto.ClearField("opset_import")), "declares no opset"),
        (damaged(lambda proto: proto.graph.ClearField("output")), "declares no output"),
        (damaged(lambda proto: proto.graph.initializer[0].ClearField("name")), "a weight without a name"),
        (damaged(lambda proto: proto.graph.initializer[0].dims.append(2)), "has 1600 bytes where 3200 are due"),
        (lambda proto: b"", "holds no graph"),
        (lambda proto: b"some text", "is not an ONNX model, or is truncated"),
        (lambda proto: proto.SerializeToString()[:-7], "is not an ONNX model, or is truncated"),
    ],
)
def test_what_is_no_model_is_refused_in_one_line(
    build: Build, edit: Callable[[onnx.ModelProto], Any], says: str
) -> None:
    with pytest.raises(ModelError, match=f"^the (ModelProto|bytes) that was given .*{says}") as caught:
        as_model(edit(onnx.load(build(SMALL))))
    assert "\n" not in str(caught.value)


def test_a_size_of_minus_one_varies_in_every_form(build: Build) -> None:
    def write_it_so(proto: onnx.ModelProto) -> None:
        proto.graph.input[0].type.tensor_type.shape.dim[0].dim_value = -1

    path = build(SMALL, edit=write_it_so)
    for form in FORMS.values():
        shape = as_model(form(path)).graph.inputs[0].shape
        assert shape is not None
        assert not isinstance(shape[0], int)


def test_an_ir_model_with_a_weight_without_a_value(build: Build) -> None:
    given = open_model(build(SMALL))
    given.graph.initializers["b1"].const_value = None
    with pytest.raises(ModelError, match="has a weight 'b1' without a value"):
        as_model(given)


@EVERY_FORM
def test_a_model_that_breaks_the_rules_is_told_so_in_every_form(build: Build, form: Form) -> None:
    path = build("net (float[batch, 5] x) => (float[batch, 5] y) { y = Relu<alpha = 2.0>(x) }")
    with pytest.raises(ModelError, match="Unrecognized attribute: alpha") as caught:
        check_model(form(path))
    assert "\n" not in str(caught.value)
    name = "model.onnx" if isinstance(form(path), str | Path) else f"the {type(form(path)).__name__} that was given"
    assert str(caught.value).startswith(name)
