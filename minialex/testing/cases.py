"""Every tested shape, once: the tests of all backends and the mutants read the same rows.

One list per stem.  `C` counts the channels of one column, `K` the maps of all columns, as in the ops.  Rows marked
`big` are real layers at full size: one comparison per op may use them, everything else takes `small(LIST)`.
`tiny` rows are small enough for finite differences over every element.
"""

from __future__ import annotations

from .rows import (
    AugmentCase,
    Case,
    CellsCase,
    ConvCase,
    DropoutCase,
    LinearCase,
    LossCase,
    MapCase,
    NormCase,
    PoolCase,
    SGDCase,
    repro,
    small,
    tiny,
)

__all__ = ["ACTIVATION", "AUGMENT", "AVGPOOL", "CELLS", "CONV", "DROPOUT", "LINEAR", "LOCAL", "LOSS", "LRN", "MAXPOOL", "SGD",
           "SPATIAL_NORM", "AugmentCase", "Case", "CellsCase", "ConvCase", "DropoutCase", "LinearCase", "LossCase", "MapCase", "NormCase",
           "PoolCase", "SGDCase", "repro", "small", "tiny"]

CONV = [
    ConvCase("one_tap", 1, 1, 1, 1, 1, 1, 1),
    ConvCase("kernel_1x1", 2, 5, 4, 7, 3, 1, 1),
    ConvCase("window_is_extent", 2, 4, 3, 3, 5, 4, 3),
    ConvCase("odd", 2, 7, 5, 3, 7, 3, 3, pad=1),
    ConvCase("wide_kernel", 2, 5, 9, 3, 4, 2, 5, pad=1),
    ConvCase("tall_image", 3, 11, 4, 2, 3, 3, 2, stride=2),
    ConvCase("stride_over_window", 2, 9, 11, 3, 2, 2, 2, stride=3),
    ConvCase("pad_after", 2, 8, 9, 3, 4, 5, 5, stride=4, pad=(0, 3)),
    ConvCase("pad_uneven", 1, 6, 7, 2, 3, 4, 4, stride=1, pad=(1, 2)),
    ConvCase("pad_before", 2, 6, 5, 2, 3, 3, 3, stride=2, pad=(2, 0)),
    ConvCase("last_row_unread", 2, 8, 8, 2, 3, 3, 3, stride=3),
    ConvCase("channels_47_to_49", 1, 5, 5, 47, 49, 3, 3, pad=1),
    ConvCase("two_groups_one_column", 2, 6, 5, 4, 6, 3, 3, pad=1, groups=2),
    ConvCase("one_column_to_two", 2, 9, 8, 3, 6, 3, 3, stride=2, pad=(0, 1), out_columns=2),
    ConvCase("two_columns_own", 2, 5, 6, 3, 8, 3, 3, pad=1, groups=2, columns=2, out_columns=2),
    ConvCase("two_columns_four_groups", 1, 5, 5, 4, 8, 3, 3, pad=1, groups=4, columns=2, out_columns=2),
    ConvCase("two_columns_joint", 2, 5, 6, 3, 4, 3, 3, pad=1, columns=2, out_columns=2),
    ConvCase("two_columns_to_one", 2, 5, 4, 3, 5, 3, 3, pad=1, columns=2),
    ConvCase("two_groups_two_columns_to_one", 2, 4, 5, 3, 4, 3, 3, pad=1, groups=2, columns=2),
    ConvCase("three_columns_own", 2, 4, 5, 2, 6, 3, 3, pad=1, groups=3, columns=3, out_columns=3),
    ConvCase("three_columns_joint", 2, 4, 5, 2, 6, 3, 3, pad=1, columns=3, out_columns=3),
    ConvCase("many_images", 33, 8, 7, 3, 4, 3, 3, pad=1, columns=2, out_columns=2),
    ConvCase("many_images_strided", 9, 19, 17, 3, 8, 5, 5, stride=2, pad=(0, 1)),
    ConvCase("long_sums", 5, 41, 40, 2, 3, 1, 1),
    ConvCase("alexnet_conv1_crop", 2, 36, 35, 3, 16, 11, 11, stride=4, pad=(0, 3), out_columns=2),
    ConvCase("cifar_conv1", 1, 24, 24, 3, 32, 5, 5, pad=2),
    ConvCase("cifar_conv2", 1, 12, 12, 32, 32, 5, 5, pad=2),
    ConvCase("alexnet_conv1", 1, 224, 224, 3, 96, 11, 11, stride=4, pad=(0, 3), out_columns=2, big=True),
    ConvCase("alexnet_conv2", 1, 27, 27, 48, 256, 5, 5, pad=2, groups=2, columns=2, out_columns=2, big=True),
    ConvCase("alexnet_conv3", 2, 13, 13, 128, 384, 3, 3, pad=1, columns=2, out_columns=2, big=True),
    ConvCase("alexnet_conv4", 2, 13, 13, 192, 384, 3, 3, pad=1, groups=2, columns=2, out_columns=2, big=True),
    ConvCase("alexnet_conv5", 1, 13, 13, 192, 256, 3, 3, pad=1, groups=2, columns=2, out_columns=2, big=True),
    ConvCase("onegpu_conv2", 1, 27, 27, 48, 128, 5, 5, pad=2, big=True),
    ConvCase("small_pools_conv2", 1, 28, 28, 48, 256, 5, 5, pad=1, groups=2, columns=2, out_columns=2, big=True),
]

LOCAL = [
    ConvCase("one_tap", 1, 1, 1, 1, 1, 1, 1),
    ConvCase("odd", 2, 5, 4, 3, 3, 3, 3, pad=1),
    ConvCase("wide_kernel", 2, 4, 6, 2, 3, 2, 3),
    ConvCase("stride_over_window", 2, 7, 8, 3, 2, 2, 2, stride=3),
    ConvCase("pad_after", 2, 5, 6, 2, 3, 3, 3, stride=2, pad=(0, 2)),
    ConvCase("pad_uneven", 1, 4, 5, 2, 3, 4, 4, pad=(1, 2)),
    ConvCase("two_groups_one_column", 2, 4, 3, 4, 4, 3, 3, pad=1, groups=2),
    ConvCase("one_column_to_two", 2, 4, 5, 3, 4, 3, 3, pad=1, out_columns=2),
    ConvCase("two_columns_own", 2, 4, 3, 2, 4, 3, 3, pad=1, groups=2, columns=2, out_columns=2),
    ConvCase("two_columns_joint", 2, 4, 3, 2, 4, 3, 3, pad=1, columns=2, out_columns=2),
    ConvCase("three_columns_joint", 2, 3, 4, 2, 6, 3, 3, pad=1, columns=3, out_columns=3),
    ConvCase("channels_7", 9, 4, 4, 7, 7, 3, 3, pad=1),
    ConvCase("many_images", 11, 7, 7, 12, 16, 3, 3, pad=1),
    ConvCase("cifar_local3", 2, 6, 6, 64, 64, 3, 3, pad=1, big=True),
    ConvCase("cifar_local4", 2, 6, 6, 64, 32, 3, 3, pad=1, big=True),
]

LINEAR = [
    LinearCase("one_number", 1, 1, 1),
    LinearCase("odd", 3, 7, 5),
    LinearCase("one_output", 2, 47, 1),
    LinearCase("channels_47_to_49", 5, 47, 49),
    LinearCase("one_column_to_two", 3, 7, 6, out_columns=2),
    LinearCase("two_columns_own", 3, 5, 6, groups=2, columns=2, out_columns=2),
    LinearCase("two_columns_joint", 3, 5, 6, columns=2, out_columns=2),
    LinearCase("two_columns_to_one", 3, 5, 7, columns=2),
    LinearCase("three_columns_own", 2, 4, 9, groups=3, columns=3, out_columns=3),
    LinearCase("three_columns_joint", 2, 4, 9, columns=3, out_columns=3),
    LinearCase("cifar_fc10", 16, 576, 10),
    LinearCase("many_images", 67, 300, 160, columns=2, out_columns=2),
    LinearCase("long_sums", 2, 4608, 3, columns=2),
    LinearCase("alexnet_fc6_256_rows", 2, 4608, 256, columns=2, out_columns=2, big=True),
    LinearCase("alexnet_fc7_512_rows", 2, 2048, 512, columns=2, out_columns=2, big=True),
    LinearCase("alexnet_fc8", 2, 2048, 1000, columns=2, big=True),
    LinearCase("talkless_fc7_512_rows", 2, 4096, 512, groups=2, columns=2, out_columns=2, big=True),
]

# alpha near 1 except in the last rows: at the paper's 1e-4 a wrong window is invisible (docs/PAPER_TO_CODE.md).
LRN = [
    NormCase("one_channel", 2, 3, 2, 1),
    NormCase("channels_below_window", 2, 3, 2, 3, n=9),
    NormCase("channels_are_window", 1, 2, 3, 5),
    NormCase("odd", 2, 3, 4, 7),
    NormCase("n_1", 2, 3, 2, 6, n=1),
    NormCase("n_3", 2, 3, 2, 7, n=3, k=1.0, beta=0.5),
    NormCase("n_9", 1, 3, 3, 13, n=9, k=1.0),
    NormCase("two_columns", 2, 3, 2, 7, columns=2, alpha=0.8),
    NormCase("three_columns", 1, 2, 3, 4, columns=3, n=3),
    NormCase("channels_47", 2, 4, 5, 47),
    NormCase("channels_49", 2, 4, 5, 49, columns=2, k=1.0, beta=1.0),
    NormCase("many_images", 9, 13, 12, 48),
    NormCase("paper_alpha", 2, 3, 4, 48, columns=2, alpha=1e-4),
    NormCase("cifar_norm1", 2, 12, 12, 64, n=9, k=1.0, alpha=0.001 / 9),
    NormCase("alexnet_norm1", 1, 55, 55, 48, columns=2, alpha=1e-4, big=True),
    NormCase("alexnet_norm2", 1, 27, 27, 128, columns=2, alpha=1e-4, big=True),
    NormCase("caffe_norm1", 1, 55, 55, 96, k=1.0, alpha=1e-4 / 5, big=True),
]

SPATIAL_NORM = [
    NormCase("one_position", 2, 1, 1, 3, n=3, k=1.0),
    NormCase("map_below_window", 2, 3, 2, 2, n=9, k=1.0),
    NormCase("odd", 2, 5, 4, 3, n=3, k=1.0),
    NormCase("n_1", 2, 3, 4, 2, n=1),
    NormCase("n_5", 1, 6, 7, 3, n=5, k=1.0),
    NormCase("tall", 2, 11, 2, 3, n=5, k=2.0, beta=0.5),
    NormCase("two_columns", 2, 6, 7, 3, n=5, columns=2, k=1.0, alpha=0.8),
    NormCase("n_3_two_columns", 2, 4, 5, 3, n=3, columns=2, k=1.0, beta=1.0),
    NormCase("channels_47", 1, 6, 5, 47, n=5, k=1.0),
    NormCase("many_images", 9, 16, 15, 32, n=3, k=1.0),
    NormCase("cifar_norm1", 2, 16, 16, 32, n=3, k=1.0, alpha=5e-5 / 9),
    NormCase("source2012_norm2", 1, 27, 27, 128, columns=2, n=5, k=1.0, alpha=0.001 / 25, big=True),
]

_POOLS = [
    PoolCase("window_is_extent", 2, 3, 3, 2),
    PoolCase("window_1", 2, 3, 4, 3, window=1, stride=1),
    PoolCase("exact", 2, 7, 5, 3),
    PoolCase("clipped", 2, 6, 8, 3),
    PoolCase("clipped_one_axis", 1, 7, 6, 2),
    PoolCase("tall", 2, 13, 4, 1),
    PoolCase("stride_1", 1, 5, 6, 3, window=3, stride=1),
    PoolCase("stride_is_window", 2, 5, 7, 3, window=2, stride=2),
    PoolCase("window_5", 2, 9, 10, 3, window=5, stride=2),
    PoolCase("stride_over_window", 2, 8, 7, 3, window=2, stride=3),
    PoolCase("last_window_outside", 1, 6, 3, 2, window=2, stride=3),
    PoolCase("window_1_stride_3", 1, 4, 7, 2, window=1, stride=3),
    PoolCase("two_columns", 2, 5, 6, 3, columns=2),
    PoolCase("three_columns", 1, 4, 5, 2, columns=3),
    PoolCase("channels_47", 1, 7, 8, 47),
    PoolCase("channels_49", 3, 5, 5, 49, columns=2),
    PoolCase("many_images", 9, 24, 24, 16),
    PoolCase("cifar_pool1", 2, 24, 24, 32),
]

MAXPOOL = [
    *_POOLS,
    PoolCase("alexnet_pool1", 2, 55, 55, 48, columns=2, big=True),
    PoolCase("alexnet_pool2", 2, 27, 27, 128, columns=2, big=True),
    PoolCase("alexnet_pool5", 2, 13, 13, 128, columns=2, big=True),
    PoolCase("small_pools_pool1", 1, 55, 55, 48, columns=2, window=2, stride=2, big=True),
]

AVGPOOL = [
    *_POOLS,
    PoolCase("cifar_pool2", 2, 16, 16, 32),
    PoolCase("cifar_pool3", 2, 8, 8, 64),
]

ACTIVATION = [
    MapCase("one_number", 1, 1, 1, 1),
    MapCase("odd", 2, 3, 5, 7),
    MapCase("two_columns", 3, 4, 3, 3, columns=2),
    MapCase("channels_47", 2, 3, 4, 47),
    MapCase("many_images", 9, 13, 12, 48),
    MapCase("alexnet_relu1", 1, 55, 55, 48, columns=2, big=True),
]

CELLS = [
    CellsCase("one_pixel", 1, 1, 1, 1),
    CellsCase("cells_of_one", 2, 3, 5, 2, cell=1),
    CellsCase("odd", 2, 5, 7, 3, columns=2),
    CellsCase("one_cell_larger_than_the_picture", 2, 3, 4, 2, cell=5),
    CellsCase("filters_of_11", 7, 11, 11, 3, cell=4),
    CellsCase("vectors", 3, 8, 12, 3, cell=4),
    CellsCase("vectors_with_rest", 2, 7, 10, 2, columns=3),
    CellsCase("vectors_of_the_picture_alone", 2, 6, 4, 1),
    CellsCase("many", 3, 52, 44, 3, cell=4),
]

DROPOUT = [
    DropoutCase("one_number", 1, 1, 1, 1),
    DropoutCase("odd", 3, 1, 1, 7, step=3),
    DropoutCase("two_columns", 5, 1, 1, 13, columns=2, layer=4, seed=7),
    DropoutCase("three_columns", 2, 2, 3, 3, columns=3, keep=0.75, layer=1),
    DropoutCase("maps", 2, 3, 5, 7, keep=0.9, scale=1 / 0.9, step=1 << 20),
    DropoutCase("block_of_a_batch", 4, 1, 1, 10, columns=2, first=96, step=5),
    DropoutCase("long_seed", 2, 1, 1, 33, seed=0x0123456789ABCDEF, step=0xFFFFFFFF),
    DropoutCase("keep_all", 2, 1, 1, 9, keep=1.0),
    DropoutCase("channels_4", 3, 2, 3, 4, layer=2, keep=0.7),
    DropoutCase("channels_8_two_columns", 3, 3, 2, 8, columns=2, keep=0.4, scale=2.5, first=0xFFFFFFFE),
    DropoutCase("channels_12_three_columns", 2, 5, 19, 12, columns=3, seed=1 << 40, layer=0xFFFFFFFF),
    DropoutCase("fc6", 17, 1, 1, 2048, columns=2, layer=17, step=2),
    DropoutCase("first_of_two", 3, 2, 3, 5, of=2),
    DropoutCase("second_of_three", 2, 2, 1, 7, column=1, of=3, first=5),
    DropoutCase("channels_8_last_of_two", 3, 2, 3, 8, column=1, of=2, layer=3),
    DropoutCase("channels_4_two_of_four", 2, 3, 2, 4, columns=2, column=1, of=4, step=2),
]

LOSS = [
    LossCase("two_classes", 1, 2),
    LossCase("one_class", 2, 1),
    LossCase("odd", 3, 7),
    LossCase("cifar", 16, 10, spread=5.0),
    LossCase("imagenet", 8, 1000, spread=10.0),
    LossCase("far_apart", 5, 11, spread=300.0),
]

SGD = [
    SGDCase("one_number", 1, ((0, 1, 0.01, 0.0005),)),
    SGDCase("weights_and_biases", 50, ((0, 35, 0.01, 0.0005), (35, 42, 0.02, 0.0), (42, 50, 0.01, 0.0005))),
    SGDCase("gap_between_segments", 40, ((3, 11, 0.1, 0.01), (17, 40, 0.2, 0.02))),
    SGDCase("frozen_layer", 30, ((0, 12, 0.0, 0.0005), (12, 30, 0.01, 0.0005))),
    SGDCase("empty_segment", 20, ((0, 8, 0.1, 0.01), (8, 8, 1.0, 1.0), (8, 20, 0.05, 0.0))),
    SGDCase("no_momentum", 17, ((0, 17, 0.1, 0.01),), momentum=0.0),
    SGDCase("many", 300_011, ((0, 299_991, 0.01, 0.0005), (299_991, 300_011, 0.01, 0.0))),
]

AUGMENT = [
    AugmentCase("whole_picture", 2, 4, 5, 4, 5),
    AugmentCase("odd", 3, 9, 7, 5, 4),
    AugmentCase("odd_centre", 3, 9, 8, 5, 5, mean_at="centre"),
    AugmentCase("noisy_scale", 4, 8, 8, 6, 6, mean_at="centre", scale=1 / 1.1),
    AugmentCase("rows_of_12", 5, 7, 9, 5, 4, mean_at="centre", scale=0.3),
    AugmentCase("rows_of_60", 3, 31, 22, 23, 20, scale=1 / 3),
    AugmentCase("in_cells", 3, 9, 14, 6, 8, cell=2),
    AugmentCase("in_cells_of_vectors", 3, 19, 15, 16, 12, mean_at="centre", scale=0.3, cell=4),
    AugmentCase("cifar", 40, 32, 32, 24, 24),
    AugmentCase("imagenet", 1, 256, 256, 224, 224),
]
