"""The layers of the paper and of its relatives, one file each."""

from .avgpool import AvgPool
from .base import Layer, Run
from .cells import CellConv, CellConvReLU
from .conv import Conv
from .conv_relu import ConvReLU
from .dropout import Dropout
from .linear import Linear
from .linear_relu import LinearReLU
from .local import Local
from .loss import SoftmaxLoss
from .lrn import LRN
from .lrn_maxpool import LRNMaxPool
from .maxpool import MaxPool
from .relu import ReLU
from .sigmoid import Sigmoid
from .spatial_norm import SpatialNorm
from .tanh import Tanh

__all__ = ["LRN", "AvgPool", "CellConv", "CellConvReLU", "Conv", "ConvReLU", "Dropout", "LRNMaxPool", "Layer", "Linear", "LinearReLU",
           "Local", "MaxPool", "ReLU", "Run", "Sigmoid", "SoftmaxLoss", "SpatialNorm", "Tanh"]
