"""Wrong dropouts, losses, updates and augmentations.

As in mutants_weights, each op is written once more with every deviation beside the line it spoils; with `wrong=""` it is
right, and the tests demand that it passes.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from ..philox import philox
from .mutants import MUTANTS, Mutant


def _kept(shape, keep, seed, step, layer, first, column, columns, wrong):
    """True where kept, (G, N, H, W, C)."""
    G, N, H, W, C = shape
    g, n, h, w, c = np.ogrid[:G, :N, :H, :W, :C]
    columns = column + G if columns is None or wrong == "columns_of_the_array_alone" else columns
    g = g + (0 if wrong == "column_of_the_array_alone" else column)
    e = (h * W + w) * (columns * C) + g * C + c
    if wrong == "columns_share_a_mask":
        e = (h * W + w) * C + c + 0 * g
    if wrong == "columns_one_after_the_other":
        e = ((g * H + h) * W + w) * C + c
    if wrong == "positions_share_a_mask":
        e = g * C + c + 0 * (h + w)
    image = 0 * n if wrong == "images_share_a_mask" else n if wrong == "blocks_count_from_0" else n + first
    step = 0 if wrong == "steps_share_a_mask" else step
    layer = 0 if wrong == "layers_share_a_mask" else layer
    if wrong == "step_and_layer_swapped":
        step, layer = layer, step
    key = {"seeds_share_a_mask": 0, "seed_cut_to_32_bits": seed & 0xFFFFFFFF}.get(wrong, seed)
    words = philox(e // 4, image, step, layer, key)
    word = words[0] if wrong == "four_neighbours_share_a_word" else np.choose(e % 4, words)
    if wrong == "keep_and_drop_swapped":
        return word >= keep * 2.0**32
    return word < keep * 2.0**32


def dropout(x, y, *, keep, scale, seed, step, layer, first, column=0, columns=None, wrong=""):
    """dropout_fprop; dropout_bprop too, which only has other names for x and y."""
    if wrong == "not_masked":
        y[...] = x * np.asarray(scale, x.dtype)
        return
    if wrong == "bprop_draws_the_next_step":
        step = step + 1
    factor = {"scaled_by_1_over_keep_too": scale / keep, "scaled_by_keep_too": scale * keep, "scale_forgotten": 1.0}.get(wrong, scale)
    y[...] = np.where(_kept(x.shape, keep, seed, step, layer, first, column, columns, wrong), x * np.asarray(factor, x.dtype), 0)


def dropout_bprop(dy, dx, *, wrong="", **mask):
    """dropout_bprop."""
    dropout(dy, dx, wrong=wrong, **mask)


def dropout_test(x, y, *, factor, wrong=""):
    """dropout_test."""
    y[...] = x * np.asarray({"divided": 1 / factor, "factor_forgotten": 1.0}.get(wrong, factor), x.dtype)


def loss_fprop(x, labels, p, loss, *, wrong=""):
    """loss_fprop."""
    rows = np.arange(len(labels))
    top = x.max(axis=1, keepdims=True)
    if wrong == "largest_logit_not_subtracted":
        top = np.zeros_like(top)
    if wrong == "largest_logit_of_the_batch_subtracted":
        top = np.full_like(top, x.max())
    with np.errstate(all="ignore"):             # what the mutants overflow is for the proof to find
        e = np.exp(x - top)
        total = e.sum(axis=1)
        p[...] = e / total[:, None]
        value = np.log(total) - (x - top)[rows, labels]
        if wrong == "log_of_p":
            value = -np.log(p[rows, labels])
        if wrong == "log_of_p_clipped":
            value = -np.log(np.maximum(p[rows, labels], 1e-10))
    if wrong == "next_label":
        value = np.log(total) - (x - top)[rows, (labels + 1) % x.shape[1]]
    if wrong == "mean_of_the_batch":
        value = np.full_like(value, value.mean())
    if wrong == "averaged_over_classes":
        value = value / x.shape[1]
    if wrong == "bits":
        value = value / np.log(2)
    loss[...] = -value if wrong == "sign" else value


def loss_bprop(p, labels, dx, *, scale, wrong=""):
    """loss_bprop."""
    onehot = (np.arange(p.shape[1]) == labels[:, None]).astype(p.dtype)
    scale = np.asarray({"summed_not_averaged": 1.0, "averaged_twice": scale / len(labels)}.get(wrong, scale), p.dtype)
    result = {"onehot_missing": p * scale, "onehot_not_scaled": p * scale - onehot, "sign": (onehot - p) * scale,
              "gradient_of_p": (p - onehot) * p * scale}.get(wrong)
    dx[...] = (p - onehot) * scale if result is None else result


def sgd_update(w, v, dw, *, segments, momentum, wrong=""):
    """sgd_update."""
    for i, (start, stop, rate, decay) in enumerate(segments):
        if wrong == "one_decay_for_all_segments":
            decay = max(s[3] for s in segments)
        if wrong == "one_rate_for_all_segments":
            rate = segments[0][2]
        part = slice(0 if wrong == "gaps_updated" and i == 0 else start, stop)
        old = v[part].copy()
        gradient = -dw[part] if wrong == "sign" else dw[part]
        if wrong == "rate_outside_the_velocity":                # the usual library form
            v[part] = momentum * old + decay * w[part] + gradient
            w[part] -= rate * v[part]
            continue
        shrink = {"decay_without_the_rate": decay, "decay_missing": 0.0, "decay_grows": -decay * rate}.get(wrong, decay * rate)
        v[part] = momentum * old - shrink * w[part] - rate * gradient * (1 - momentum if wrong == "gradient_damped" else 1)
        if wrong == "decay_outside_the_velocity":
            v[part] = momentum * old - rate * gradient
            w[part] *= 1 - decay * rate
        w[part] += momentum * v[part] - rate * gradient if wrong == "nesterov" else old if wrong == "last_velocity" else v[part]


def augment_fprop(images, mean, offsets, flips, noise, y, *, mean_at, scale, wrong=""):
    """augment_fprop."""
    _, H0, W0, _ = images.shape
    cell = int(np.sqrt(y.shape[4] // 3))
    H, W = y.shape[2] * cell, y.shape[3] * cell
    for n, (top, left) in enumerate(offsets.tolist()):
        if wrong == "offsets_swapped":
            top, left = min(left, H0 - H), min(top, W0 - W)
        if wrong == "one_crop_for_all":
            top, left = offsets[0].tolist()
        crop = images[n, top:top + H, left:left + W].astype(y.dtype)
        y0, x0 = (H0 - H) // 2, (W0 - W) // 2
        if wrong == "centre_rounded_up":
            y0, x0 = -(-(H0 - H) // 2), -(-(W0 - W) // 2)
        aligned, centre = mean[top:top + H, left:left + W], mean[y0:y0 + H, x0:x0 + W]
        if wrong == "mean_at_the_corner":
            aligned = centre = mean[:H, :W]
        if wrong == "mean_of_a_channel":
            aligned = centre = np.broadcast_to(mean.mean(axis=(0, 1)), crop.shape)
        if wrong == "mean_choices_swapped":
            aligned, centre = centre, aligned
        flipped = not flips[n] if wrong == "flips_inverted" else flips[n]
        mirror = (slice(None, None, -1), slice(None)) if wrong == "flipped_upside_down" else (slice(None), slice(None, None, -1))
        crop = crop - aligned if mean_at == "crop" and wrong != "flip_before_the_mean" else crop
        crop = crop - centre if mean_at == "centre" and wrong == "mean_before_the_flip" else crop
        crop = crop[mirror] if flipped and wrong != "never_flips" else crop
        crop = crop - aligned if mean_at == "crop" and wrong == "flip_before_the_mean" else crop
        crop = crop - centre if mean_at == "centre" and wrong != "mean_before_the_flip" else crop
        shift = noise[0 if wrong == "one_noise_for_all_images" else n]
        if wrong == "noise_of_one_colour":
            shift = np.full_like(shift, shift[0])
        if wrong == "noise_per_pixel":
            shift = shift * np.where(np.indices((H, W)).sum(axis=0) % 2, 1, -1)[:, :, None].astype(y.dtype)
        factor = np.asarray(1.0 if wrong == "scale_forgotten" else scale, y.dtype)
        out = crop * factor + shift if wrong == "noise_after_the_scale" else (crop + shift) * factor
        out = out[:, :, ::-1] if wrong == "bgr" else np.clip(out, -128, 127) if wrong == "clipped" else out
        order = (2, 0, 1, 3, 4) if wrong == "cells_in_columns" else (0, 2, 1, 3, 4)
        y[0, n] = out.reshape(y.shape[2], cell, y.shape[3], cell, 3).transpose(order).reshape(y.shape[2:])


_MASKS = ("columns_share_a_mask", "columns_one_after_the_other", "positions_share_a_mask", "images_share_a_mask", "blocks_count_from_0",
          "steps_share_a_mask", "layers_share_a_mask", "step_and_layer_swapped", "seeds_share_a_mask", "seed_cut_to_32_bits",
          "four_neighbours_share_a_word", "keep_and_drop_swapped", "scaled_by_1_over_keep_too", "scaled_by_keep_too", "scale_forgotten",
          "not_masked", "column_of_the_array_alone", "columns_of_the_array_alone")

_TABLE = (
    ("dropout", "dropout_fprop", dropout, _MASKS),
    ("dropout", "dropout_bprop", dropout_bprop, (*_MASKS, "bprop_draws_the_next_step")),
    ("dropout", "dropout_test", dropout_test, ("divided", "factor_forgotten")),
    ("loss", "loss_fprop", loss_fprop, ("largest_logit_not_subtracted", "largest_logit_of_the_batch_subtracted", "log_of_p",
                                        "log_of_p_clipped", "next_label", "mean_of_the_batch", "averaged_over_classes", "bits", "sign")),
    ("loss", "loss_bprop", loss_bprop, ("summed_not_averaged", "averaged_twice", "onehot_missing", "onehot_not_scaled", "sign",
                                        "gradient_of_p")),
    ("sgd", "sgd_update", sgd_update, ("one_decay_for_all_segments", "one_rate_for_all_segments", "gaps_updated", "sign",
                                       "rate_outside_the_velocity", "decay_without_the_rate", "decay_missing", "decay_grows",
                                       "gradient_damped", "decay_outside_the_velocity", "nesterov", "last_velocity")),
    ("augment", "augment_fprop", augment_fprop, ("offsets_swapped", "one_crop_for_all", "centre_rounded_up", "mean_at_the_corner",
                                                 "mean_of_a_channel", "mean_choices_swapped", "flips_inverted", "flipped_upside_down",
                                                 "flip_before_the_mean", "mean_before_the_flip", "never_flips", "one_noise_for_all_images",
                                                 "noise_of_one_colour", "noise_per_pixel", "scale_forgotten", "noise_after_the_scale",
                                                 "bgr", "clipped", "cells_in_columns")),
)

BASES = [Mutant(stem, "right", op, function) for stem, op, function, _ in _TABLE]     # the controls: right versions
MUTANTS += [Mutant(stem, wrong, op, partial(function, wrong=wrong)) for stem, op, function, names in _TABLE for wrong in names]
