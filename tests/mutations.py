"""Damage to real model files: only an error of onnxprune, in one line, may come of it.

    python -m tests.mutations FOLDER FIRST COUNT FILE...    one line of JSON per damaged file, to standard output

It is run in a process of its own, whose memory is limited: a crash in native code, or an allocation of what a damaged
size claims, ends that process and not the tests.
"""

from __future__ import annotations

import contextlib
import json
import random
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto

MEMORY = 4 << 30
SIZES = (0, -1, 1, 2, 3, 7, 2**31, 2**40, 10**12, -(2**63), 2**63 - 1)
SLOW_LINE = 300

Damage = Callable[[random.Random, ModelProto], None]
DAMAGES: list[Damage] = []


def damage(function: Damage) -> Damage:
    """Decorator: the function damages a model in place; it fails where there is nothing to damage."""
    DAMAGES.append(function)
    return function


# -- the file


def damaged_bytes(rng: random.Random, data: bytes) -> bytes:
    """Bytes exchanged, cut off, taken out or put in; half of the time near the beginning, where the graph is."""
    reach = rng.choice((500, 4_000, 12_000, len(data)))
    kind = rng.choice(("exchange", "exchange", "truncate", "take out", "put in"))
    out = bytearray(data)
    at = rng.randrange(min(reach, len(out)))
    if kind == "truncate":
        del out[rng.randrange(len(out)) :]
    elif kind == "take out":
        del out[at : at + rng.randint(1, 40)]
    elif kind == "put in":
        out[at:at] = rng.randbytes(rng.randint(1, 40))
    else:
        for _ in range(rng.choice((1, 2, 5, 20))):
            out[rng.randrange(min(reach, len(out)))] = rng.randrange(256)
    return bytes(out)


# -- nodes


@damage
def node_removed(rng: random.Random, model: ModelProto) -> None:
    del model.graph.node[rng.randrange(len(model.graph.node))]


@damage
def node_twice(rng: random.Random, model: ModelProto) -> None:
    model.graph.node.append(rng.choice(model.graph.node))


@damage
def nodes_in_another_order(rng: random.Random, model: ModelProto) -> None:
    nodes = list(model.graph.node)
    rng.shuffle(nodes)
    del model.graph.node[:]
    model.graph.node.extend(nodes)


@damage
def input_of_a_node_exchanged(rng: random.Random, model: ModelProto) -> None:
    """By what does not exist, by what comes later, by its own result, by another type, by nothing."""
    nodes = [node for node in model.graph.node if node.input]
    node = rng.choice(nodes)
    other = rng.choice(model.graph.node)
    names = ["nowhere", "", *other.output, *node.output, rng.choice(model.graph.initializer).name]
    node.input[rng.randrange(len(node.input))] = rng.choice(names)


@damage
def cycle(rng: random.Random, model: ModelProto) -> None:
    first, last = sorted(rng.sample(range(len(model.graph.node)), 2))
    node = model.graph.node[first]
    node.input[rng.randrange(len(node.input))] = model.graph.node[last].output[0]


@damage
def input_of_a_node_dropped_or_added(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    if rng.random() < 0.5:
        node.input.pop()
    else:
        node.input.append(rng.choice(model.graph.initializer).name)


@damage
def output_of_a_node_renamed(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    other = rng.choice(model.graph.node)
    node.output[rng.randrange(len(node.output))] = rng.choice(["", other.output[0], model.graph.input[0].name, "new"])


@damage
def another_operator(rng: random.Random, model: ModelProto) -> None:
    known = sorted({schema.name for schema in onnx.defs.get_all_schemas() if schema.domain == ""})
    node = rng.choice(model.graph.node)
    node.op_type = rng.choice([*known, "", "Unheard", rng.choice(model.graph.node).op_type])


@damage
def another_domain(rng: random.Random, model: ModelProto) -> None:
    rng.choice(model.graph.node).domain = rng.choice(["com.microsoft", "ai.onnx", "ai.onnx.ml", "nobody"])


# -- attributes


def _attributes(model: ModelProto) -> list[tuple[NodeProto, AttributeProto]]:
    return [(node, attribute) for node in model.graph.node for attribute in node.attribute]


@damage
def attribute_dropped(rng: random.Random, model: ModelProto) -> None:
    node, attribute = rng.choice(_attributes(model))
    node.attribute.remove(attribute)


@damage
def attribute_of_another_type(rng: random.Random, model: ModelProto) -> None:
    _, attribute = rng.choice(_attributes(model))
    name = attribute.name
    value = rng.choice([1, 1.5, "text", [1, 2], [0.5], ["a", "b"], [], onnx.helper.make_tensor("t", 1, [1], [1.0])])
    replaced = onnx.helper.make_attribute(name, value, attr_type=AttributeProto.INTS if value == [] else None)
    attribute.CopyFrom(replaced)


@damage
def attribute_with_a_lying_type(rng: random.Random, model: ModelProto) -> None:
    _, attribute = rng.choice(_attributes(model))
    attribute.type = rng.choice([type_ for type_ in AttributeProto.AttributeType.values() if type_ != attribute.type])


@damage
def number_in_an_attribute(rng: random.Random, model: ModelProto) -> None:
    chosen = [each for _, each in _attributes(model) if each.type in (AttributeProto.INT, AttributeProto.INTS)]
    attribute = rng.choice(chosen)
    if attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(SIZES)
    elif rng.random() < 0.3:
        attribute.ints.append(rng.choice(SIZES))
    else:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(SIZES)


@damage
def attribute_invented(rng: random.Random, model: ModelProto) -> None:
    names = ("axis", "axes", "group", "perm", "broadcast", "keepdims", "to", "num_outputs", "mode", "start", "end")
    value = rng.choice([rng.choice(SIZES), [rng.choice(SIZES)], "text", 0.5])
    rng.choice(model.graph.node).attribute.append(onnx.helper.make_attribute(rng.choice(names), value))


@damage
def reference_to_an_attribute_of_a_function(rng: random.Random, model: ModelProto) -> None:
    _, attribute = rng.choice(_attributes(model))
    attribute.ref_attr_name = "outside"


# -- weights and constants


def _tensors(model: ModelProto) -> list[TensorProto]:
    inside = [attribute.t for _, attribute in _attributes(model) if attribute.HasField("t")]
    return [*model.graph.initializer, *inside]


@damage
def initializer_missing(rng: random.Random, model: ModelProto) -> None:
    del model.graph.initializer[rng.randrange(len(model.graph.initializer))]


@damage
def initializer_twice(rng: random.Random, model: ModelProto) -> None:
    model.graph.initializer.append(rng.choice(model.graph.initializer))


@damage
def initializer_renamed(rng: random.Random, model: ModelProto) -> None:
    names = ["", model.graph.node[0].output[0], model.graph.output[0].name, model.graph.input[0].name]
    rng.choice(model.graph.initializer).name = rng.choice(names)


@damage
def size_of_a_tensor(rng: random.Random, model: ModelProto) -> None:
    tensor = rng.choice(_tensors(model))
    if not tensor.dims or rng.random() < 0.2:
        tensor.dims.append(rng.choice(SIZES))
    elif rng.random() < 0.2:
        tensor.dims.pop()
    else:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(SIZES)


@damage
def huge_tensor_without_data(rng: random.Random, model: ModelProto) -> None:
    tensor = rng.choice(_tensors(model))
    for name in ("raw_data", "float_data", "int64_data", "int32_data"):
        tensor.ClearField(name)
    if rng.random() < 0.5:
        del tensor.dims[:]
        tensor.dims.extend(rng.choice([[10**12], [2**20, 2**20], [2**62, 4], [-1, -(10**12)]]))


@damage
def type_of_a_tensor(rng: random.Random, model: ModelProto) -> None:
    rng.choice(_tensors(model)).data_type = rng.choice([*range(27), 99, -1])


@damage
def data_of_a_tensor(rng: random.Random, model: ModelProto) -> None:
    tensor = rng.choice(_tensors(model))
    tensor.raw_data = rng.choice([b"", tensor.raw_data[:-1], tensor.raw_data + b"\0" * 4, rng.randbytes(8)])


@damage
def numbers_of_a_shape(rng: random.Random, model: ModelProto) -> None:
    """What a Reshape, Slice, Expand, Gather reads as a constant."""
    tensor = rng.choice([tensor for tensor in _tensors(model) if tensor.data_type == TensorProto.INT64])
    array = onnx.numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[rng.randrange(array.size)] = rng.choice(SIZES)
    tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))


@damage
def external_data(rng: random.Random, model: ModelProto) -> None:
    tensor = rng.choice(_tensors(model))
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    places = ("missing.bin", "../outside", "/etc/hostname", ".", "", "model.onnx", "a\0b", "x" * 5000)
    entries = {
        "location": rng.choice(places),
        "offset": rng.choice(["0", "-1", "99999999999999999999", "nan"]),
        "length": rng.choice(["4", "-4", "1000000000000", ""]),
    }
    for key in rng.sample(sorted(entries), rng.randint(1, 3)):
        tensor.external_data.add(key=key, value=entries[key])


@damage
def sparse_weight(rng: random.Random, model: ModelProto) -> None:
    sparse = model.graph.sparse_initializer.add()
    sparse.values.CopyFrom(rng.choice(model.graph.initializer))
    sparse.indices.CopyFrom(onnx.helper.make_tensor("at", TensorProto.INT64, [1], [rng.choice(SIZES)]))
    sparse.dims.extend([rng.choice(SIZES), 3])


# -- the interface, the model


@damage
def shape_of_an_input(rng: random.Random, model: ModelProto) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    sizes = value.type.tensor_type.shape.dim
    kind = rng.randrange(4)
    if kind == 0:
        sizes.pop()
    elif kind == 1:
        sizes.add(dim_param=rng.choice(["", "N", "a b", "N"]))
    elif kind == 2:
        value.type.tensor_type.ClearField("shape")
    else:
        sizes[rng.randrange(len(sizes))].dim_value = rng.choice(SIZES)


@damage
def type_of_an_input(rng: random.Random, model: ModelProto) -> None:
    value = rng.choice([*model.graph.input, *model.graph.output])
    kind = rng.randrange(4)
    if kind == 0:
        value.ClearField("type")
    elif kind == 1:
        value.type.sequence_type.elem_type.tensor_type.elem_type = 1
    elif kind == 2:
        value.type.optional_type.elem_type.tensor_type.elem_type = 1
    else:
        value.type.tensor_type.elem_type = rng.choice([*range(27), 99])


@damage
def interface(rng: random.Random, model: ModelProto) -> None:
    values = rng.choice([model.graph.input, model.graph.output])
    kind = rng.randrange(3)
    if kind == 0:
        values.pop()
    elif kind == 1:
        values.append(values[0])
    else:
        values[0].name = rng.choice(["", "other", model.graph.node[0].output[0], model.graph.initializer[0].name])


@damage
def shape_beside_a_value(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    shape = [rng.choice(SIZES) for _ in range(rng.randint(0, 4))]
    model.graph.value_info.append(onnx.helper.make_tensor_value_info(node.output[0], rng.randrange(1, 12), shape))


@damage
def opset(rng: random.Random, model: ModelProto) -> None:
    kind = rng.randrange(4)
    if kind == 0:
        model.opset_import[0].version = rng.choice([*SIZES, 5, 6, 999])
    elif kind == 1:
        model.opset_import[0].domain = rng.choice(["ai.onnx", "other", "ai.onnx.ml"])
    elif kind == 2:
        del model.opset_import[:]
    else:
        model.opset_import.append(onnx.helper.make_opsetid("", rng.choice([1, 7, 21])))


@damage
def version(rng: random.Random, model: ModelProto) -> None:
    model.ir_version = rng.choice(SIZES)


@damage
def function_that_calls_itself(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    inputs = [f"x{i}" for i in range(rng.choice([len(node.input), 1]))]
    call = onnx.helper.make_node(node.op_type, inputs, ["y"], domain="looped")
    imports = [onnx.helper.make_opsetid("looped", 1)]
    model.functions.append(onnx.helper.make_function("looped", node.op_type, inputs, ["y"], [call], imports))
    model.opset_import.append(onnx.helper.make_opsetid("looped", 1))
    node.domain = "looped"


@damage
def body_that_reads_its_own_result(rng: random.Random, model: ModelProto) -> None:
    node = rng.choice(model.graph.node)
    name = rng.choice([node.output[0], "nowhere", model.graph.output[0].name])
    inner = onnx.helper.make_node("Relu", [name], ["inner"])
    body = onnx.helper.make_graph([inner], "body", [], [onnx.helper.make_empty_tensor_value_info("inner")])
    flag = onnx.helper.make_tensor("flag", TensorProto.BOOL, [], [True])
    model.graph.initializer.append(flag)
    node.CopyFrom(onnx.helper.make_node("If", ["flag"], list(node.output), then_branch=body, else_branch=body))


# -- one damaged file


def damaged(seed: int, files: list[Path]) -> tuple[str, bytes]:
    """What was done, and the damaged file."""
    rng = random.Random(seed)
    source = files[seed % len(files)]
    data = source.read_bytes()
    if rng.random() < 0.3:
        return f"{source.name}: bytes", damaged_bytes(rng, data)
    model = onnx.load(source)
    done: list[str] = []
    while len(done) < rng.choice((1, 1, 1, 2)):
        chosen = rng.choice(DAMAGES)
        with contextlib.suppress(IndexError, ValueError):
            chosen(rng, model)
            done.append(chosen.__name__)
    return f"{source.name}: {', '.join(done)}", model.SerializeToString()


def outcome(path: Path, target: Path) -> str:
    """What comes of a file: "written", "refused: ..." in one line, or "escaped: ..." with any other error."""
    from onnxprune.errors import OnnxpruneError
    from onnxprune.pipeline.run import compress, inspect

    before = path.read_bytes()
    with contextlib.suppress(OnnxpruneError):
        inspect(path)
    try:
        compress(path, ratio=0.5, recover="none").save(target)
        said = "written"
    except OnnxpruneError as error:
        said = f"refused: {error}"
        if "\n" in str(error) or not str(error):
            return f"escaped: not one line: {error}"
    left = sorted(each.name for each in path.parent.iterdir())
    if path.read_bytes() != before or left != sorted([path.name, *([target.name] if said == "written" else [])]):
        return f"escaped: the folder holds {left} after: {said}"
    target.unlink(missing_ok=True)
    return said


def main(folder: Path, first: int, count: int, files: list[Path]) -> None:
    """Damage, try, say: one JSON line before each try, so that a crash has a name, and one after it."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in range(first, first + count):
        done, data = damaged(seed, files)
        path = folder / "model.onnx"
        path.write_bytes(data)
        print(json.dumps({"seed": seed, "damage": done}), flush=True)
        try:
            said = outcome(path, folder / "out.onnx")
        except Exception as error:
            said = f"escaped: {type(error).__name__}: {str(error)[:SLOW_LINE]}"
        print(json.dumps({"seed": seed, "said": said}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), [Path(name) for name in sys.argv[4:]])
