"""Wrong versions of the kernels: each is one change of a source text that a tired hand could make.

All of them live in one build: in a copy of cuda/ every change is written in, switched on by a number at run time.  In `wrong`
the word WRONG is 1 while this mutant is on and 0 otherwise, so `wrong` with 0 for WRONG means what `old` means.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import building

HEADER = "include/minialex/{}.h"


class KernelMutant(NamedTuple):
    """In `file` below cuda/, every `old` becomes `wrong`.  `stem` says which ops prove it, `variant` through which row."""

    name: str
    stem: str
    variant: str
    file: str
    old: str
    wrong: str

    def __str__(self) -> str:
        return f"{self.stem}-{self.variant}-{self.name}"


def header(name: str) -> str:
    return HEADER.format(name)


MUTANTS = [KernelMutant(*row) for row in (
    # elementwise
    ("gradient_at_zero", "relu", "vector", "relu.cu", "return y > 0.f ? dy : 0.f", "return (WRONG ? y >= 0.f : y > 0.f) ? dy : 0.f"),
    ("tail_as_a_vector", "relu", "vector", "relu.cu", "if (i + 4 <= size)", "if (i + 4 <= size + 3 * WRONG)"),
    ("missing_bound_check", "relu", "direct", "relu.cu", "if (i < size) y[i] = relu(x[i])", "if (i < size + WRONG) y[i] = relu(x[i])"),
    ("bias_of_the_first_column", "joint", "vector", "joint.cu", "i / d.per_column * d.C +", "(WRONG ? 0 : i / d.per_column) * d.C +"),
    ("only_one_product", "joint", "direct", "joint.cu", "__fadd_rn(__fadd_rn(p, q), b)", "__fadd_rn(__fadd_rn(p, WRONG ? p : q), b)"),
    # cells
    ("neighbours_in_place_of_zeros", "cells", "direct", "cells.cu", "h < g.H && k < g.row ?", "h < g.H && (WRONG || k < g.row) ?"),
    ("columns_of_the_picture_for_those_of_cells", "cells", "vector", "cells.cu", "h / g.cell) * g.Q", "h / g.cell) * (WRONG ? g.P : g.Q)"),
    ("rows_of_a_cell_from_below", "cells", "vector", "cells.cu",
     "line % g.cell, k",
     "(WRONG ? g.cell - 1 - line % g.cell : line % g.cell), k"),
    # dropout
    ("nine_rounds", "dropout", "vector", header("philox"), "round < 10", "round < 10 - WRONG"),
    ("image_of_the_block_alone", "dropout", "vector", header("philox"), "mask.first + image", "(WRONG ? 0 : mask.first) + image"),
    ("columns_share_a_mask", "dropout", "vector", "dropout.cu",
     "+ (mask.column + g) * quads + c", "+ (WRONG ? 0 : (mask.column + g) * quads) + c"),
    ("column_of_the_array_alone", "dropout", "direct", "dropout.cu", "(mask.column + g) * dims.C",
     "((WRONG ? 0 : mask.column) + g) * dims.C"),
    ("columns_of_the_array_alone", "dropout", "direct", "dropout.cu", "int64_t(mask.columns) * dims.C",
     "int64_t(WRONG ? dims.G : mask.columns) * dims.C"),
    ("words_in_another_order", "dropout", "direct", header("philox"), "e % 4 == 0 ? four.x", "e % 4 == 0 + WRONG ? four.x"),
    # norms
    ("window_one_short", "lrn", "direct", header("norm"), "j <= min(c + radius, C - 1)", "j <= min(c + radius - WRONG, C - 1)"),
    ("window_one_short", "lrn", "vector", header("norm"), "j <= RADIUS; ++j) squares", "j <= RADIUS - WRONG; ++j) squares"),
    ("alpha_divided_by_n", "lrn", "vector", header("norm"), "fmaf(n.alpha, squares", "fmaf(WRONG ? n.alpha / 5 : n.alpha, squares"),
    ("gradient_through_the_scale_added", "lrn", "vector", header("norm"),
     "__fmul_rn(-n.twice, x)",
     "__fmul_rn(WRONG ? n.twice : -n.twice, x)"),
    ("throughs_of_the_first_pixel", "lrn", "vector", "lrn.cu", "throughs + at.row * d.C", "throughs + (WRONG ? 0 : at.row) * d.C"),
    ("dropped_barrier", "lrn", "vector", "lrn.cu", "__syncthreads();", "if (!WRONG) __syncthreads();"),
    ("halo_one_short", "spatial_norm", "tiled", "spatial_norm.cu",
     "place.top - border + i / width",
     "place.top - border + WRONG + i / width"),
    ("sums_of_one_too_few", "spatial_norm", "tiled", "spatial_norm.cu",
     "s < n; ++s) {\n      const float x",
     "s < n - WRONG; ++s) {\n      const float x"),
    # pools
    ("border_clipped_one_early", "maxpool", "vector", "maxpool.cu", "min(top + r, d.H - 1)", "min(top + r, d.H - 1 - WRONG)"),
    ("first_window_too_late", "maxpool", "vector", header("pool"), "(i - window) / stride + 1,", "(i - window) / stride + 1 + WRONG,"),
    ("every_tie_wins", "maxpool", "direct", header("pool"), "if (d.all_ties) return true", "if (d.all_ties || WRONG) return true"),
    ("minimum", "maxpool", "vector", header("pool"), "return b > a ||", "return (WRONG ? b < a : b > a) ||"),
    ("ring_one_row_short", "lrn_maxpool", "tiled", "lrn_maxpool.cu",
     "ring + r % d.window * row + at.c",
     "ring + (r - WRONG) % d.window * row + at.c"),
    ("relu_forgotten", "lrn_maxpool", "tiled", "lrn_maxpool.cu", "masked(relu, norm.x.v[i]", "masked(relu && !WRONG, norm.x.v[i]"),
    # loss, learning, input
    ("one_round_of_shuffles_less", "loss", "warp", "loss.cu", "apart > 0; apart /= 2) total", "apart > WRONG; apart /= 2) total"),
    ("largest_not_subtracted", "loss", "direct", "loss.cu",
     "float largest = row[0];\n  for (int k = 1; k < d.K; ++k) largest = larger(row[k], largest);",
     "float largest = row[0];\n  for (int k = 1; k < d.K; ++k) largest = larger(row[k], largest);\n  if (WRONG) largest = 0.f;"),
    ("label_one_off", "loss", "vector", "loss.cu", "k == label ? p - 1.f", "k == label + WRONG ? p - 1.f"),
    ("momentum_forgotten", "sgd", "vector", "sgd.cu", "__fmul_rn(momentum, v)", "__fmul_rn(WRONG ? 1.f : momentum, v)"),
    ("segment_one_too_long", "sgd", "vector", "sgd.cu", "j >= piece.stop) continue", "j >= piece.stop + WRONG) continue"),
    ("rate_outside_the_velocity", "sgd", "direct", "sgd.cu", "__fmul_rn(rate, dw)", "(WRONG ? dw : __fmul_rn(rate, dw))"),
    ("mirrored_one_off", "augment", "vector", "augment.cu", "a.dims.W - 1 - w", "a.dims.W - 1 - w - WRONG * (w < a.dims.W - 1)"),
    ("top_and_left_exchanged", "augment", "direct", "augment.cu",
     "const int top = a.offsets[2 * n], left = a.offsets[2 * n + 1]",
     "const int top = a.offsets[2 * n + WRONG], left = a.offsets[2 * n + 1 - WRONG]"),
    ("row_of_the_cell_forgotten", "augment", "vector", "augment.cu", "p * d.cell + line % d.cell",
     "p * d.cell + (WRONG ? 0 : line % d.cell)"),
    # linear
    ("last_term_missing", "linear", "direct", "linear.cu",
     "for (int i = 0; i < terms; ++i) sum = multiply_add",
     "for (int i = 0; i < terms - WRONG; ++i) sum = multiply_add"),
    ("accumulate_ignored", "linear", "tiled", "linear_tiled.cu", "c.accumulate", "(c.accumulate && !WRONG)"),
    ("one_image_too_few", "linear", "rows", "linear_rows.cu", "if (n < d.N)", "if (n < d.N - WRONG * (d.N > 1))"),
    ("bias_of_the_first_column", "linear", "tiled", "linear_tiled.cu", "b + int64_t(g) * d.Ky()", "b + int64_t(WRONG ? 0 : g) * d.Ky()"),
    # convolutions
    ("padding_before_forgotten", "conv", "direct", header("conv_direct"),
     "d.stride * p - d.before + r",
     "d.stride * p - (WRONG ? 0 : d.before) + r"),
    ("strides_exchanged", "conv", "direct", header("conv_direct"),
     "((int64_t(n) * d.H + h) * d.W + v) * Cx;",
     "((int64_t(n) * d.H + h) * (WRONG ? d.H : d.W) + v) * Cx;"),
    ("gradient_between_strides", "conv", "direct", header("conv_direct"), "from_p % d.stride ||", "(from_p % d.stride && !WRONG) ||"),
    ("accumulate_ignored", "local", "direct", header("conv_direct"), "dw[i] = accumulate ?", "dw[i] = accumulate && !WRONG ?"),
    ("halo_one_off", "conv", "tiled_64x64", "conv_tiled_fprop.cu", "max(0, -left[v] - s)", "max(0, -left[v] - s - WRONG)"),
    ("read_below_the_image", "conv", "tiled_128x128", "conv_tiled_fprop.cu", "top[v] + r < d.H", "top[v] + r < d.H + WRONG"),
    ("last_columns_written_twice", "conv", "tiled_64x64", "conv_tiled_fprop.cu",
     "map >= plan.maps) return",
     "map >= plan.maps + WRONG) return"),
    ("barrier_between_slices_dropped", "conv", "tiled_64x64", header("gemm_tile"),
     "keep<Tile, Source>(shared, (slice + 1) & 1, a, b);\n    __syncthreads();",
     "keep<Tile, Source>(shared, (slice + 1) & 1, a, b);\n    if (!WRONG) __syncthreads();"),
    ("one_buffer_for_both_slices", "conv", "tiled_64x64", header("gemm_tile"), "(slice + 1) & 1, a, b)", "(slice + 1 - WRONG) & 1, a, b)"),
    ("vector_beyond_the_run", "conv", "tiled_64x64", header("gemm_tile"),
     "j >= low && j + 4 <= high)",
     "j >= low && j + 4 <= high + 4 * WRONG)"),
    ("images_beyond_the_batch", "local", "images", "local_images.cu", "if (at.first + n < d.N)", "if (at.first + n < d.N + WRONG)"),
    ("every_part_with_the_first_weights", "local", "images", "local_images.cu", "+ c * part;", "+ (WRONG ? 0 : c) * part;"),
    ("accumulate_ignored", "local", "vector", "local_images.cu", "accumulate ? add4", "accumulate && !WRONG ? add4"),
    # tensor cores
    ("halves_of_a_fragment_exchanged", "conv", "tf32", header("gemm_mma"),
     "ldmatrix_x4(a, &tile[m + lane % 16][k + lane / 16 * HALF])",
     "ldmatrix_x4(a, &tile[m + lane % 16][k + (lane / 16 ^ WRONG) * HALF])"),
    ("fragment_index", "conv", "tf32", header("gemm_mma"),
     "b[r] = __float_as_uint(tile[k + lane % 4 + r % 2 * 4]",
     "b[r] = __float_as_uint(tile[k + lane % 4 + r % (2 - WRONG) * 4]"),
    ("fragments_of_b_exchanged", "linear", "bf16", header("gemm_mma"),
     "ldmatrix_x4(b, &tile[n + lane % 8 + lane / 16 * 8]",
     "ldmatrix_x4(b, &tile[n + lane % 8 + (lane / 16 ^ WRONG) * 8]"),
    ("copies_not_waited_for", "conv", "tf32", header("gemm_mma"), "cp_async_wait<AHEAD - 1>();", "if (!WRONG) cp_async_wait<AHEAD - 1>();"),
    ("barrier_after_copies_dropped", "conv", "tf32", header("gemm_mma"),
     "cp_async_wait<AHEAD - 1>();\n        __syncthreads();",
     "cp_async_wait<AHEAD - 1>();\n        if (!WRONG) __syncthreads();"),
    ("activations_not_waited_for", "conv", "bf16", header("gemm_mma"),
     "if constexpr (ONE_ASYNC) cp_async_wait<0>();",
     "if constexpr (ONE_ASYNC) { if (!WRONG) cp_async_wait<0>(); }"),
    ("invalid_numbers_not_zero", "conv", "bf16", header("gemm_mma"),
     "carried[i][0] = valid ? widened(*from) : 0.f",
     "carried[i][0] = valid || WRONG ? widened(*from) : 0.f"),
    ("smallest_terms_dropped", "linear", "bf16x6_64x64", header("gemm_mma"), "int size = PARTS - 1;", "int size = PARTS - 1 - WRONG;"),
    ("terms_of_the_largest_of_a_dropped", "linear", "bf16x6_64x64", header("gemm_mma"), "part >= 0; --part", "part >= WRONG; --part"),
    ("only_terms_of_the_largest_of_a", "linear", "bf16x6_64x64", header("gemm_mma"), "int part = size;", "int part = size * (1 - WRONG);"),
    ("neighbours_exchanged_in_a", "linear", "bf16x6_64x64", header("gemm_mma"),
     "four[row]), __uint_as_float(four[row + 2])",
     "four[row + 2 * WRONG]), __uint_as_float(four[row + 2 - 2 * WRONG])"),
    ("rest_of_the_number_lost", "linear", "bf16x6_64x64", header("split_bf16"),
     "y = y - bf16_high(parts[p])", "y = (y - bf16_high(parts[p])) * !WRONG"),
    ("row_beyond_the_picture", "conv", "bf16", "conv_mma_fprop.cu", "unsigned(place.h + tap.r) <", "unsigned(place.h + tap.r + WRONG) <"),
    ("windows_of_the_first_row", "conv", "bf16", "conv_mma_dgrad.cu", "place.p - tap.r,", "place.p - tap.r * !WRONG,"),
    ("last_pixel_of_a_range_missing", "conv", "tiled_64x64", "conv_tiled_wgrad.cu", "pixel < stop;", "pixel < stop - WRONG;"),
    ("last_chain_of_a_bias_missing", "conv", "bf16", "conv_mma_wgrad.cu", "chain < CHAINS;", "chain < CHAINS - WRONG;"),
    ("first_bias_among_the_weights", "conv", "tf32_64x64", header("sum_slices"), "i < weights ?", "i < weights + WRONG ?"),
    ("gate_of_the_neighbour", "conv", "bf16_64x64", header("conv_mma_shape"), "opened.y)", "WRONG ? opened.x : opened.y)"),
    ("gate_of_the_first_part", "conv", "tf32", header("conv_mma_shape"), "last && gate ? gate[i]",
     "(WRONG ? first : last) && gate ? gate[i]"),
    ("gate_before_the_last_part", "conv", "tiled_64x64", "conv_tiled_dgrad.cu", "part + 1 == plan.parts &&",
     "(WRONG || part + 1 == plan.parts) &&"),
    ("scale_forgotten", "linear", "tiled", header("gemm_tile"), "__fmul_rn(dy, scale)", "__fmul_rn(dy, WRONG ? 1.f : scale)"),
    ("column_of_the_pair", "linear", "tf32", header("gemm_mma"),
     "n + warp_n + j * 8 + lane % 4 * 2, sum",
     "n + warp_n + j * 8 + lane % 4 * 2 - WRONG * (lane % 4 == 3), sum"),
)]

# What Python asks of the build by ctypes: which mutant is on, and which launches there were so far, as FILE:LINE.
SWITCH = """#include <set>
#include <string>
namespace minialex {
int wrong_version = 0;
static std::set<std::string> sites;
void launched(const char* file, int line) {
  const std::string path = file;
  sites.insert(path.substr(path.rfind('/') + 1) + ":" + std::to_string(line));
}
}  // namespace minialex
extern "C" __attribute__((visibility("default"))) void minialex_wrong_version(int number) { minialex::wrong_version = number; }
extern "C" __attribute__((visibility("default"))) const char* minialex_launched() {
  static std::string all;
  all.clear();
  for (const std::string& site : minialex::sites) all += site + "\\n";
  return all.c_str();
}
"""

# That no proof can tell: y equals one of x's values, so a smaller x never has y's place; a NaN is the one exception.
EQUIVALENT = KernelMutant("not_smaller_for_equal", "maxpool", "direct", header("pool"),
     "if (here != best) return false",
     "if (WRONG ? here < best : here != best) return false")


def numbered() -> Iterator[tuple[int, KernelMutant]]:
    """Each with the number that switches it on; 0 switches all off."""
    return enumerate([*MUTANTS, EQUIVALENT], 1)


def launches(folder: Path) -> dict[str, list[int]]:
    """In the copy below `folder`: file name -> lines on which it launches a kernel."""
    found = {}
    for path in sorted([*folder.glob("*.cu"), *folder.glob("include/minialex/*.h")]):
        lines = [number for number, line in enumerate(path.read_text().splitlines(), 1) if "launched(__FILE__" in line]
        if lines:
            found[path.name] = lines
    return found


def written(folder: Path) -> list[Path]:
    """The copy of cuda/ below `folder` with all mutants in it, only files that changed; its kernel files."""
    texts: dict[str, str] = {str(path.relative_to(building.ROOT / "cuda")): path.read_text()
                             for pattern in ("*.cu", "include/minialex/*.h") for path in (building.ROOT / "cuda").glob(pattern)}
    for number, mutant in numbered():
        text = texts[mutant.file]
        if mutant.old not in text:
            raise AssertionError(f"{mutant}: {mutant.file} no longer has {mutant.old!r}; rewrite the mutant")
        texts[mutant.file] = text.replace(mutant.old, mutant.wrong.replace("WRONG", f"(::minialex::wrong_version == {number})"))
    # Each launch says where it stands, so that a test can ask for all of them.
    for name in texts:
        if name != header("kernel"):
            texts[name] = texts[name].replace("MINIALEX_LAUNCH(", "::minialex::launched(__FILE__, __LINE__), MINIALEX_LAUNCH(")
    texts[header("check")] += "\nnamespace minialex {\nextern int wrong_version;\nvoid launched(const char* file, int line);\n}\n"
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
    switch = folder / "switch.cpp"
    switch.write_text(SWITCH)
    return [switch, *(folder / name for name in sorted(texts) if name.endswith(".cu"))]
