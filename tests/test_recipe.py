"""A recipe with a difference: "small(pool=2)" is one line for an ablation, in Python, behind --recipe and in a checkpoint."""

from __future__ import annotations

import numpy as np
import pytest

from minialex.config import resolve
from minialex.data import transform, views
from minialex.evaluate import seen
from minialex.nets import Constant, Steps, recipe
from minialex.spec import MiniAlexError
from minialex.train import Trainer


def names(r) -> list[str]:
    return [layer.name for layer in r.build(10)]


def test_a_word_of_the_network_changes_the_network_alone():
    plain, without = recipe("small"), recipe('small(without="conv4", lrn=False)')
    assert set(names(plain)) - set(names(without)) == {"conv4", "relu4", "norm1", "norm2"}
    assert without.but(name="", about="", differs=(), build=None) == plain.but(name="", about="", differs=(), build=None)


def test_words_of_training_and_augmentation_change_these_alone():
    changed = recipe("small(decay=0, epochs=3, crops=False, colour_std=0.0, steps=(1, 2))")
    assert (changed.decay, changed.epochs, changed.schedule) == (0, 3, Steps(at=(1, 2)))
    assert (changed.augmentation.crops, changed.augmentation.flips, changed.augmentation.colour_std) == (False, True, 0.0)
    assert names(changed) == names(recipe("small"))
    assert recipe("cifar18(steps=())").schedule == Constant()


def test_the_name_lists_the_differences_in_a_fixed_order_and_names_the_recipe_again():
    one, other = recipe("small(pool=2,lrn=False)"), recipe("small( lrn = False, pool=2 )")
    assert one.name == other.name == recipe(one.name).name == "small(lrn=False, pool=2)"
    assert one.build(5) == recipe(one.name).build(5)
    assert "differs by lrn=False, pool=2" in one.differs


def test_the_input_is_scaled_in_training_and_at_test(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"recipe": "figure1(width=0.1, scale=0.25)", "epochs": 1, "limit_batches": 1, "batch": 8}
    with Trainer(asked, quiet=True, pictures=False) as trainer:
        batch = next(iter(trainer.batches(0)))
        wanted = (batch.images.astype(np.float32) - trainer.store.mean) * np.float32(0.25)
        transform(trainer.ops, batch, trainer.means[0], trainer.net.input(8))
        assert np.allclose(trainer.ops.to_host(trainer.net.input(8))[0], wanted, atol=1e-4)
        for _ in seen(trainer.net, batch.images, trainer.means, trainer.recipe, views(32, 32, "centre")):
            assert np.allclose(trainer.ops.to_host(trainer.net.input(8))[0], wanted, atol=1e-4)


def test_a_checkpoint_of_another_difference_is_refused():
    config, _, _ = resolve({"recipe": "small(pool=2)"})
    assert resolve({"recipe": "small( pool = 2 )"}, config.as_dict())[0].recipe == "small(pool=2)"
    with pytest.raises(MiniAlexError, match=r"made by recipe small\(pool=2\)"):
        resolve({"recipe": "small"}, config.as_dict())


@pytest.mark.parametrize("name, words", [
    ("small(pol=2)", "recipe small has no word 'pol'; did you mean pool?"),
    ("smal(pool=2)", "no recipe is called 'smal': did you mean 'small'?"),
    ("small(2)", "differences are written as word=value"),
    ("small(pool=)", "differences are written as word=value"),
    ("small(pool=2", "differences are written as word=value"),
    ("small(pool=open('x'))", "differences are written as word=value"),
    ("small(**{'pool': 2})", "differences are written as word=value"),
    ("small(pool='x')", "cannot be built with these values"),
    ("small(width=0.3)", "not a whole number"),
    ('figure1(unit="sine")', "there are relu, tanh, sigmoid"),
    ("small(schedule=1)", "no word 'schedule'"),
])
def test_what_is_no_difference_gives_one_sentence(name, words):
    with pytest.raises(MiniAlexError) as error:
        recipe(name)
    assert words in str(error.value) and "\n" not in str(error.value)


def test_a_run_with_a_difference_goes_on_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = {"recipe": "figure1(width=0.25, unit='tanh')", "epochs": 1, "limit_batches": 2, "batch": 8}
    with Trainer(dict(asked), quiet=True) as trainer:
        for epoch in trainer.epochs():
            for batch in trainer.batches(epoch):
                trainer.learn(batch)
            trainer.validate(epoch)
        assert trainer.folder.name == "figure1-1"
    with Trainer({"epochs": 2}, resume="auto", quiet=True) as trainer:
        assert trainer.recipe.name == "figure1(unit='tanh', width=0.25)" and trainer.epoch == 1
