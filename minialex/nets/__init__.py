"""Networks by name.  `recipe("paper")` is one of RECIPES, which lists all of them in the order tables print them."""

from __future__ import annotations

import difflib

from ..spec import MiniAlexError
from .recipe import Augmentation, Constant, Plateau, Recipe, Steps

__all__ = ["RECIPES", "Augmentation", "Constant", "Plateau", "Recipe", "Steps", "recipe"]


def __getattr__(name: str):
    """RECIPES, gathered when first asked for: `python -m minialex.nets.alexnet` must not import itself twice."""
    if name != "RECIPES":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from .alexnet import CAFFE, CONV6, ONEGPU, PAPER, SOURCE2012, TALKLESS
    from .cifar import CIFAR11, CIFAR13, CIFAR18
    from .tiny import TINY
    recipes = (PAPER, SOURCE2012, ONEGPU, TALKLESS, CONV6, CAFFE, CIFAR13, CIFAR11, CIFAR18, TINY)
    globals()["RECIPES"] = {one.name: one for one in recipes}
    return globals()["RECIPES"]


def recipe(name: str) -> Recipe:
    """The recipe called `name`.  Raises MiniAlexError, with the nearest names, where there is none."""
    recipes = __getattr__("RECIPES")
    if name in recipes:
        return recipes[name]
    near = difflib.get_close_matches(str(name).lower(), recipes, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise MiniAlexError(f"no recipe is called {name!r}: {hint}there are {', '.join(recipes)}")
