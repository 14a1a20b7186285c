"""The fast NumPy backend: the path of a machine without a GPU.

Images go through the layers in small blocks that fit the caches, on one thread for each core (workers.py); every op writes
into the caller's arrays and keeps its intermediate values in its thread's scratch memory.  No result depends on the number
of workers.  `blas_reason` is None, or why NumPy's BLAS could not be set to one thread for each worker.
"""

from .abilities import fused, set_precision, storage
from .augment import augment_fprop
from .avgpool import avgpool_bprop, avgpool_fprop
from .cells import cells_bprop, cells_fprop
from .conv import conv_dgrad, conv_fprop, conv_relu_fprop, conv_wgrad
from .dropout import dropout_bprop, dropout_fprop, dropout_test
from .joint import joint_sum
from .linear import linear_dgrad, linear_fprop, linear_relu_fprop, linear_wgrad
from .local import local_dgrad, local_fprop, local_wgrad
from .loss import loss_bprop, loss_fprop
from .lrn import lrn_bprop, lrn_fprop
from .lrn_maxpool import lrn_maxpool_bprop, lrn_maxpool_fprop
from .maxpool import maxpool_bprop, maxpool_fprop
from .relu import relu_bprop, relu_fprop
from .sgd import sgd_update
from .sigmoid import sigmoid_bprop, sigmoid_fprop
from .spatial_norm import spatial_norm_bprop, spatial_norm_fprop
from .tanh import tanh_bprop, tanh_fprop
from .workers import blas_reason, empty, from_host, image_ranges, parallel, set_workers, sum_partials, to_host, workers

__all__ = ["augment_fprop", "avgpool_bprop", "avgpool_fprop", "blas_reason", "cells_bprop", "cells_fprop", "conv_dgrad", "conv_fprop",
           "conv_relu_fprop", "conv_wgrad", "dropout_bprop", "dropout_fprop", "dropout_test", "empty", "from_host", "fused", "image_ranges",
           "joint_sum", "linear_dgrad", "linear_fprop", "linear_relu_fprop", "linear_wgrad", "local_dgrad", "local_fprop", "local_wgrad",
           "loss_bprop", "loss_fprop", "lrn_bprop", "lrn_fprop", "lrn_maxpool_bprop", "lrn_maxpool_fprop", "maxpool_bprop", "maxpool_fprop",
           "parallel", "relu_bprop", "relu_fprop", "set_precision", "set_workers", "sgd_update", "sigmoid_bprop", "sigmoid_fprop",
           "spatial_norm_bprop", "spatial_norm_fprop", "storage", "sum_partials", "tanh_bprop", "tanh_fprop", "to_host", "workers"]
