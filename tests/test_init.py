"""First weights from another network: which layers are taken, to the bit, and what a run that began so does afterwards."""

import json
import shutil

import numpy as np
import pytest
from commands import empty_folder, finished, refused
from conftest import load_or_skip
from pictures import picture, tree
from runs import assert_same_run

from minialex import backends, checkpoint, initial, train
from minialex.config import resolve
from minialex.layers import Conv, Linear, Local
from minialex.net import Net
from minialex.nets import recipe
from minialex.optim import SGD
from minialex.placement import network, places
from minialex.spec import MiniAlexError, Shape

CLASSES = [f"n{k:02}" for k in range(12)]
OTHERS = [f"m{k:02}" for k in range(5)]


@pytest.fixture
def cpu():
    return backends.load("cpu")


def net_of(ops, name: str, classes: list[str], seed: int = 0, **options) -> Net:
    one = recipe(name)
    return Net(one.build(len(classes)), one.input, 4, ops, seed=seed, **options)


def saved(folder, ops, name: str = "small", classes=CLASSES, seed: int = 7) -> tuple:
    """(path of a checkpoint of untrained weights, those weights)."""
    net = net_of(ops, name, classes, seed)
    arrays = net.params.host()
    state = {"recipe": recipe(name).name, "config": resolve({"recipe": name})[0].as_dict(), "classes": classes, "step": 31}
    path = checkpoint.save(folder, f"checkpoint-{seed}.safetensors", {"w/" + key: value for key, value in arrays.items()}, state)
    return path, arrays


def begun(ops, path, name: str, classes=CLASSES, **options) -> tuple:
    """A new net as --init leaves it: (net, weights, configuration, lines)."""
    net = net_of(ops, name, classes)
    config, lines = initial.begin(net, resolve({"recipe": name, "init": str(path)} | options)[0], classes)
    return net, net.params.host(), config, lines


def weights(arrays: dict) -> dict:
    """Of all that a checkpoint holds, by their own names."""
    return {key[2:]: value for key, value in arrays.items() if key.startswith("w/")}


def same(one: dict, two: dict, layers: str) -> bool:
    return all(one[key].tobytes() == two[key].tobytes() for key in one if key.split(".")[0] in layers.split())


# ------------------------------------------------------------------------------------------------------------------------ what is taken


def test_the_table_says_what_became_of_each_layer(tmp_path, cpu):
    """From the pre-training network to a narrower end for other classes, with a layer left fresh on request."""
    path, there = saved(tmp_path, cpu, "small(conv6=True)", CLASSES)
    _, here, config, lines = begun(cpu, path, "small(hidden=(4096, 2048))", OTHERS, init_skip="conv5")
    assert lines == [
        f"init: weights from {path} (recipe small(conv6=True), 12 classes, step 31)",
        "  layer  weights  numbers  why",
        "  " + "-" * 67,
        "  conv1  taken      1,776",
        "  conv2  taken      4,832",
        "  conv3  taken     13,872",
        "  conv4  taken     10,416",
        "  conv5  new        6,944  asked by --init-skip",
        "  fc6    taken     66,048",
        "  fc7    skipped  131,328  (512, 512) there, (256, 512) here",
        "  fc8    new        1,285  another class list: 12 there, 5 here",
        "  conv6  left              only the checkpoint has it, (32, 3, 3, 16)",
        "init: 5 of 8 layers, 96,944 of 236,501 numbers",
        "init: momentum starts at 0, and the mean image is that of the new data"]
    assert config.taken["layers"] == ["conv1", "conv2", "conv3", "conv4", "fc6"]
    fresh = net_of(cpu, "small(hidden=(4096, 2048))", OTHERS).params.host()
    assert same(here, there, "conv1 conv2 conv3 conv4 fc6") and same(here, fresh, "conv5 fc7 fc8")
    assert not same(here, fresh, "conv1") and not same(here, there, "conv5")


def test_a_layer_that_the_checkpoint_lacks_is_new(tmp_path, cpu):
    path, there = saved(tmp_path, cpu, "small")
    _, here, _, lines = begun(cpu, path, "small(conv6=True)")
    row = next(line for line in lines if "conv6" in line and "new" in line)
    assert row.split() == ["conv6", "new", "4,640", "the", "checkpoint", "has", "none"]
    assert same(here, there, "conv1 conv2 conv3 conv4 conv5 fc6 fc7 fc8")
    assert same(here, net_of(cpu, "small(conv6=True)", CLASSES).params.host(), "conv6")


@pytest.mark.parametrize("classes, taken", [(CLASSES, True), (CLASSES[::-1], False), ([*CLASSES[:-1], "n99"], False), (OTHERS, False)])
def test_the_head_comes_with_its_class_list_only(classes, taken, tmp_path, cpu):
    """As many classes are not the same classes, nor are the same ones in another order."""
    path, there = saved(tmp_path, cpu)
    _, here, config, _ = begun(cpu, path, "small", classes)
    assert ("fc8" in config.taken["layers"]) == taken == (here["fc8.w"].tobytes() == there["fc8.w"].tobytes())
    assert same(here, there, "conv1 conv2 conv3 conv4 conv5 fc6 fc7")


def logits(net: Net) -> np.ndarray:
    net.input()[...] = np.random.default_rng(3).normal(0, 60, net.shapes[0].array(net.batch))
    net.fprop()
    return net.activation("fc8").reshape(net.batch, -1)


@pytest.mark.parametrize("there, here", [("tiny(lrn=False)", "tiny(columns=1, groups=2, lrn=False)"),
                                         ("tiny(columns=1, groups=2, lrn=False)", "tiny(lrn=False)")])
def test_two_columns_and_one_with_two_groups_are_one_function(there, here, tmp_path, cpu):
    """Filters (K, R, S, C/groups) lie alike in both; fc6 reads column a's maps before column b's in one, place by place in the other."""
    path, old = saved(tmp_path, cpu, there)
    net, got, _, lines = begun(cpu, path, here)
    assert [line.split()[:2] for line in lines if "reshaped" in line] == [["fc6", "reshaped"]]
    assert same(got, old, "conv1 conv2 conv3 conv4 conv5 fc7 fc8")
    assert np.array_equal(np.sort(got["fc6.w"]), np.sort(old["fc6.w"])) and not np.array_equal(got["fc6.w"], old["fc6.w"])
    want = logits(net_of(cpu, there, CLASSES, 7))
    assert np.abs(logits(net) - want).max() < 1e-5 < 1e-3 < np.abs(want).max()
    net.params.fill(("fc6", "w"), old["fc6.w"])                             # taken as it is, it would be another function
    assert np.abs(logits(net) - want).max() > 1e-3


def test_maps_keep_their_place_and_number():
    """w says which place and which map it reads: two columns of three maps at 1 x 2 places."""
    two = np.array([[100 * h + 10 * w + 3 * g + c for g in range(2) for h in range(1) for w in range(2) for c in range(3)]])
    assert two.tolist() == [[0, 1, 2, 10, 11, 12, 3, 4, 5, 13, 14, 15]]
    one = initial.reordered(two, Shape(2, 1, 2, 3), Shape(1, 1, 2, 6))
    assert one.tolist() == [[0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]]
    assert initial.reordered(one, Shape(1, 1, 2, 6), Shape(2, 1, 2, 3)).tolist() == two.tolist()
    assert initial.reordered(one, Shape(1, 1, 2, 6), Shape(3, 1, 2, 2)).tolist() == [[0, 1, 10, 11, 2, 3, 12, 13, 4, 5, 14, 15]]


@pytest.mark.parametrize("there, here, why", [
    ((Conv("a", 4, 3), (1, 5, 5, 2)), (Conv("a", 4, 5), (1, 5, 5, 2)), "(4, 3, 3, 2) there, (4, 5, 5, 2) here"),
    ((Conv("a", 4, 3, groups=2), (1, 5, 5, 4)), (Conv("a", 4, 3), (1, 5, 5, 2)), "in 2 group(s) there, 1 here"),
    ((Linear("a", 4), (1, 2, 2, 6)), (Linear("a", 4), (1, 2, 3, 4)), "reads 2 x 2 x 6 there, 2 x 3 x 4 here"),
    ((Local("a", 4, 3), (1, 5, 5, 2)), (Local("a", 4, 3), (1, 6, 6, 2)), "(3, 3, 4, 3, 3, 2) there, (4, 4, 4, 3, 3, 2) here"),
    ((Conv("a", 4, 3, stride=2, pad=1), (1, 9, 9, 2)), (Conv("a", 4, 3), (2, 5, 5, 1)), ""),
    ((Linear("a", 4), (1, 2, 2, 6)), (Linear("a", 4), (2, 2, 2, 3)), ""),
])
def test_numbers_of_the_same_shape_must_mean_the_same(there, here, why):
    one, two = (initial.Reads(layer, Shape(*x)) for layer, x in (there, here))
    assert initial.misfit(one, two) == why


def test_in_columns_on_devices_of_their_own(tmp_path, cpu):
    """ColumnNet keeps the same parameters in blocks; a checkpoint does not know where columns lived."""
    load_or_skip("emulated")
    path, there = saved(tmp_path, cpu)
    config = resolve({"recipe": "small", "device": "emulated:0,emulated:1", "init": str(path)})[0]
    net = network(recipe("small").build(12), recipe("small").input, 2, places(config))
    config, _ = initial.begin(net, config, CLASSES)
    assert len(config.taken["layers"]) == 8 and same(net.params.host(), there, " ".join(config.taken["layers"]))
    assert config.taken == begun(cpu, path, "small")[2].taken


# ------------------------------------------------------------------------------------------------------------------------ configuration


def test_the_hash_knows_what_was_taken_and_not_where_it_lay(tmp_path, cpu):
    path, _ = saved(tmp_path, cpu)
    other, _ = saved(tmp_path, cpu, seed=8)
    shutil.copy(path, tmp_path / "checkpoint-1.safetensors")
    one, moved, changed = (begun(cpu, where, "small")[2] for where in (path, tmp_path / "checkpoint-1.safetensors", other))
    fewer, slower = begun(cpu, path, "small", OTHERS)[2], begun(cpu, path, "small", taken_rate=0.5)[2]
    plain = resolve({"recipe": "small"})[0]
    assert one.hash() == moved.hash() and len({config.hash() for config in (plain, one, changed, fewer, slower)}) == 5


def test_nothing_happens_without_being_asked_or_twice(tmp_path, cpu):
    net = net_of(cpu, "small", CLASSES)
    plain = resolve({"recipe": "small"})[0]
    assert initial.begin(net, plain, CLASSES) == (plain, [])
    path, _ = saved(tmp_path, cpu)
    config = begun(cpu, path, "small")[2]
    path.unlink()
    resumed = resolve({}, json.loads(json.dumps(config.as_dict())))[0]
    assert initial.begin(net, resumed, CLASSES) == (resumed, []) and resumed.hash() == config.hash()
    assert same(net.params.host(), net_of(cpu, "small", CLASSES).params.host(), "conv1 fc8")


def test_rates_of_layers_taken_are_multiplied(tmp_path, cpu):
    """Of all their parameters, those too that keep the first rate; a schedule's own rate for a layer as well."""
    path, _ = saved(tmp_path, cpu)
    net, _, config, _ = begun(cpu, path, "small(bias_rate=2.0, bias_anneal=False)", OTHERS, taken_rate=0.25)
    assert config.factors == dict.fromkeys(["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"], 0.25)
    sgd = SGD(net, momentum=0.0, decay=0.0, factors=config.factors)
    before = net.params.host()
    for key in net.grads:
        net.grads.fill(key, np.ones(net.grads[key].shape))
    sgd.step(0.5, first_rate=1.0, layer_rates={"conv1": 0.125})
    moved = {key: float((before[key] - value).max()) for key, value in net.params.host().items()}
    want = {"conv1.w": 0.03125, "conv1.b": 0.0625, "conv2.w": 0.125, "conv2.b": 0.5, "fc7.w": 0.125, "fc8.w": 0.5, "fc8.b": 2.0}
    assert {key: moved[key] for key in want} == pytest.approx(want, rel=1e-5)


# ------------------------------------------------------------------------------------------------------------------------------ bad input


def test_what_cannot_begin_is_refused_in_one_sentence(tmp_path, cpu):
    path, _ = saved(tmp_path, cpu)
    lying = tmp_path / "checkpoint-9.safetensors"
    arrays, state = checkpoint.load(path)
    checkpoint.save(tmp_path, lying.name, arrays, state | {"recipe": "tiny"})
    for where, name, options, words in (
            (path, "small(width=0.0625)", {}, ("no layer of recipe small(width=0.0625)", "conv1: (12, 7, 7, 3) there, (6, 7, 7, 3)")),
            (path, "small", {"init_skip": "conv1,conv9"}, ("--init-skip conv1,conv9", "'conv9'", "it has conv1, conv2, conv3")),
            (path, "small", {"init_skip": "conv1,conv2,conv3,conv4,conv5,fc6,fc7,fc8"}, ("no layer", "conv1: asked by --init-skip")),
            (lying, "small", {}, ("no conv1.w of shape (12, 11, 11, 3)", "not of recipe tiny as this version builds it")),
            (tmp_path / "nowhere", "small", {}, ("nowhere", "no such file")), (tmp_path.parent, "small", {}, ("it holds no checkpoint",))):
        net = net_of(cpu, name, CLASSES)
        with pytest.raises(MiniAlexError) as caught:
            initial.begin(net, resolve({"recipe": name, "init": str(where)} | options)[0], CLASSES)
        assert all(word in str(caught.value) for word in words) and "\n" not in str(caught.value), caught.value
        assert same(net.params.host(), net_of(cpu, name, CLASSES).params.host(), "conv1 fc7 fc8")


@pytest.mark.parametrize("asked, saved_as, sentence", [
    ({"init": "x"}, {"recipe": "small"}, "--init begins a new run, and --resume goes on .*: leave one of them out"),
    ({"init_skip": "conv1"}, {"recipe": "small", "init": "x", "taken": {"layers": []}}, "--init begins a new run"),
    ({"init_skip": "conv1"}, None, "--init-skip is about layers taken from a checkpoint: name it with --init CHECKPOINT"),
    ({"taken_rate": 0.1}, None, "--taken-rate is about layers taken"), ({"taken_rate": 0.1}, {"recipe": "small"}, "--taken-rate is about"),
    ({"init": "x", "taken_rate": float("nan")}, None, "--taken-rate nan: a number of at least 0 is needed"),
    ({"init": "x", "taken_rate": -1.0}, None, "--taken-rate -1"),
])
def test_flags_that_contradict_each_other(asked, saved_as, sentence):
    with pytest.raises(MiniAlexError, match=f"^{sentence}"):
        resolve({"recipe": "small"} | asked, saved_as)


# --------------------------------------------------------------------------------------------------------------------------------- runs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Two folders of pictures: three classes to learn from first, two others to fine-tune on."""
    folder = tmp_path_factory.mktemp("photos")
    for data, names in (("first", ("ant", "bee", "cat")), ("second", ("dog", "elk"))):
        tree(folder / data, {f"{part}/{name}/{k}.png": picture(40 + 60 * i + 5 * k + 20 * (data == "second"))
                             for i, name in enumerate(names) for part, count in (("train", 6), ("val", 2)) for k in range(count)})
    return folder


@pytest.fixture(scope="module")
def first(photos):
    """The run directory of the first training, with a sixth convolution."""
    asked = {"data": photos / "first", "recipe": "small(conv6=True)", "batch": 6, "epochs": 1, "output_dir": photos / "pretrained"}
    train.run({key: value if isinstance(value, int) else str(value) for key, value in asked.items()}, quiet=True)
    return photos / "pretrained"


def tuned(photos, first, folder, *words) -> list:
    return ["train", photos / "second", "--recipe", "small", "-b", "4", "--epochs", "2", "--init", first, "--output-dir", folder, *words]


def test_a_run_begins_with_them_and_goes_on_from_its_own(photos, first, tmp_path, capsys):
    """Stopped after an epoch and resumed without its source, it ends in the bits of the run that was not stopped."""
    out = finished(capsys, *tuned(photos, first, tmp_path / "whole"))
    assert "init: weights from" in out and "conv6  left" in out and "another class list: 3 there, 2 here" in out
    copy = tmp_path / "source"
    shutil.copytree(first, copy)
    finished(capsys, *tuned(photos, copy, tmp_path / "parts"), "--epochs", "1", "-q")
    shutil.rmtree(copy)
    out = finished(capsys, "train", photos / "second", "--resume", tmp_path / "parts", "--epochs", "2")
    assert "resume: from epoch 2" in out and "init:" not in out
    assert_same_run(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (json.loads((tmp_path / name / "config.json").read_text()) for name in ("whole", "parts"))
    assert whole["taken"] == parts["taken"] and whole["hash"] == parts["hash"] and whole["init"] == str(first)
    assert whole["taken"]["layers"] == ["conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"]


def test_before_the_first_step_only_weights_have_come_along(photos, first, tmp_path):
    arrays, state = checkpoint.load(checkpoint.candidates(first)[0])
    trainer = train.Trainer({"data": str(photos / "second"), "recipe": "small", "batch": 4, "init": str(first),
                             "output_dir": str(tmp_path / "run")}, quiet=True)
    got = trainer.net.params.host()
    assert same(got, weights(arrays), "conv1 conv2 conv3 conv4 conv5 fc6 fc7")
    assert arrays["v/conv1.w"].any() and not any(value.any() for value in trainer.sgd.velocity.host().values())
    assert state["step"] == 3 and trainer.step == trainer.epoch == 0
    assert abs(trainer.store.mean.mean() - arrays["mean"].mean()) > 5 and trainer.means[0].mean() == trainer.store.mean.mean()


def test_layers_at_rate_0_stay_as_they_were(photos, first, tmp_path, capsys):
    finished(capsys, *tuned(photos, first, tmp_path / "run", "--taken-rate", "0", "-q"))
    (arrays, _), (source, _) = (checkpoint.load(checkpoint.candidates(folder)[0]) for folder in (tmp_path / "run", first))
    assert same(weights(arrays), weights(source), "conv1 conv2 conv3 conv4 conv5 fc6 fc7")
    assert arrays["v/fc8.w"].any() and not arrays["v/fc7.w"].any()


def test_refused_before_anything_is_written(photos, first, tmp_path, capsys, monkeypatch):
    here = empty_folder(tmp_path, monkeypatch)
    begin = ["train", photos / "second", "--recipe", "small", "-b", "4"]
    refused(capsys, here, [*begin, "--init", "nowhere"], "nowhere: there is no such file or folder; name a checkpoint")
    refused(capsys, here, [*begin, "--init", first, "--init-skip", "conv7"], "--init-skip conv7", "it has conv1, conv2")
    refused(capsys, here, [*begin[:3], "small(width=0.0625)", "-b", "4", "--init", first], "no layer of recipe small(width=0.0625)")
    refused(capsys, here, ["train", photos / "first", "--resume", first, "--init", first], "leave one of them out")
    refused(capsys, here, [*begin, "--taken-rate", "0.1"], "--taken-rate is about layers taken")
