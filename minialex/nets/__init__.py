"""Networks by name.  `recipe("paper")` is one of RECIPES, which lists all of them in the order tables print them, and
`recipe("paper(lrn=False)")` the same with a difference: an ablation is one line, in Python and behind --recipe."""

from __future__ import annotations

import ast
import difflib
import inspect
import warnings
from dataclasses import fields, replace
from functools import partial

from ..spec import MiniAlexError
from .recipe import Augmentation, Constant, Plateau, Recipe, Steps

__all__ = ["RECIPES", "Augmentation", "Constant", "Plateau", "Recipe", "Steps", "recipe"]


def __getattr__(name: str):
    """RECIPES, gathered when first asked for: `python -m minialex.nets.alexnet` must not import itself twice."""
    if name != "RECIPES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .alexnet import CAFFE, CONV6, ONEGPU, PAPER, SOURCE2012, TALKLESS
    from .cifar import CIFAR11, CIFAR13, CIFAR18, FIGURE1
    from .tiny import SMALL, TINY
    recipes = (PAPER, SOURCE2012, ONEGPU, TALKLESS, CONV6, CAFFE, CIFAR13, CIFAR11, CIFAR18, FIGURE1, SMALL, TINY)
    globals()["RECIPES"] = {one.name: one for one in recipes}
    return globals()["RECIPES"]


# What may stand between the brackets beside the network's own words: numbers of the training, and words of its augmentation.
TRAINING = ("batch", "rate", "momentum", "decay", "epochs", "crop", "record", "test_views")
AUGMENTATION = tuple(f.name for f in fields(Augmentation))


def recipe(name: str) -> Recipe:
    """The recipe called `name`, or "NAME(word=value, ...)": NAME with these differences, which its name lists in a fixed order.

    A word is one of the network's (`alexnet`'s keywords, such as lrn, pool, without), of TRAINING or of AUGMENTATION; `steps=(20, 30)`
    is a schedule that divides the rate by ten at these epochs, steps=() keeps one rate.
    Raises MiniAlexError, with the nearest names, where there is no such recipe or word.
    """
    recipes, (base, words) = __getattr__("RECIPES"), _parse(str(name))
    if base not in recipes:
        near = difflib.get_close_matches(base.lower(), recipes, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise MiniAlexError(f"no recipe is called {base!r}: {hint}there are {', '.join(recipes)}")
    return _changed(recipes[base], words) if words else recipes[base]


def _parse(name: str) -> tuple[str, dict]:
    """("small", {"pool": 2}) of "small(pool=2)"; values are literals, nothing is executed."""
    base, bracket, _ = name.partition("(")
    if not bracket:
        return name.strip(), {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")                     # of Python about its own syntax, for a text that is refused anyway
            call = ast.parse(name.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(word.arg is None for word in call.keywords):
            raise ValueError
        return base.strip(), {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise MiniAlexError(f"--recipe {name}: differences are written as word=value between brackets, text in quotes, for example "
                            f"'{base.strip() or 'paper'}(lrn=False, without=\"conv4\")'") from None


def _changed(base: Recipe, words: dict) -> Recipe:
    own = [k for k, p in inspect.signature(base.build).parameters.items() if p.kind is p.KEYWORD_ONLY]
    for word in words:
        if word not in (*own, *TRAINING, *AUGMENTATION, "steps"):
            near = difflib.get_close_matches(word, (*own, *TRAINING, *AUGMENTATION, "steps"), n=1)
            raise MiniAlexError(f"recipe {base.name} has no word {word!r}" + (f"; did you mean {near[0]}?" if near else "")
                                + f" Its network knows {', '.join(own)}; its training {', '.join((*TRAINING, 'steps', *AUGMENTATION))}")
    network = {k: v for k, v in words.items() if k in own}
    training = {k: v for k, v in words.items() if k in TRAINING and k not in own}
    augmentation = {k: v for k, v in words.items() if k in AUGMENTATION and k not in own}
    steps = words.get("steps")
    steps = (steps,) if isinstance(steps, int) else steps       # (3) is 3, and was meant as (3,)
    if steps is not None and not (isinstance(steps, tuple | list) and all(type(epoch) is int and epoch > 0 for epoch in steps)):
        raise MiniAlexError(f"recipe {base.name}(steps={steps!r}): give the epochs after which the rate falls, for example steps=(20, 30)")
    schedule = base.schedule if steps is None else Steps(at=tuple(steps)) if steps else Constant()
    text = ", ".join(f"{k}={v!r}" for k, v in sorted(words.items()))
    changed = base.but(name=f"{base.name}({text})", about=f"{base.about}; {text}", differs=(*base.differs, f"differs by {text}"),
                       schedule=schedule, augmentation=replace(base.augmentation, **augmentation), **training,
                       build=partial(base.build, **network))
    try:
        changed.build(changed.classes)                          # a value of the wrong kind is refused here
    except MiniAlexError:
        raise
    except (TypeError, ValueError, AttributeError, ZeroDivisionError, OverflowError) as error:
        raise MiniAlexError(f"--recipe {changed.name}: the network cannot be built with these values ({error}); "
                            f"see the words of `python -m minialex.nets.alexnet {base.name}`") from error
    return changed
