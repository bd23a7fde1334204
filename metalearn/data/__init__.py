"""Sources of episodes: synthetic task distributions, and images grouped by class."""

from metalearn.data._augmentations import Augmentation, Compose, Normalize, RandomCrop, RandomFlip
from metalearn.data._cifar import cifar_fs, fc100
from metalearn.data._class_images import ClassImages
from metalearn.data._collate import collate
from metalearn.data._cub import cub
from metalearn.data._cuda_graph import CudaGraph
from metalearn.data._episodes import TaskDistribution
from metalearn.data._grouped import Grouped
from metalearn.data._linear_classification import LinearClassification
from metalearn.data._mini_batches import MiniBatches
from metalearn.data._mini_imagenet import mini_imagenet
from metalearn.data._omniglot import omniglot
from metalearn.data._polynomial import Polynomial
from metalearn.data._pool import Pool
from metalearn.data._sampler import EpisodeSampler
from metalearn.data._shard import Shard
from metalearn.data._sinusoid import Sinusoid
from metalearn.data._support_as_query import SupportAsQuery
from metalearn.data._tiered_imagenet import tiered_imagenet
from metalearn.data._windows import windows
from metalearn.data._zipped import Zipped

__all__ = [
    "TaskDistribution",
    "Sinusoid",
    "Polynomial",
    "LinearClassification",
    "Grouped",
    "Pool",
    "Shard",
    "SupportAsQuery",
    "Zipped",
    "windows",
    "CudaGraph",
    "collate",
    "ClassImages",
    "EpisodeSampler",
    "MiniBatches",
    "Augmentation",
    "RandomFlip",
    "RandomCrop",
    "Normalize",
    "Compose",
    "omniglot",
    "cifar_fs",
    "fc100",
    "mini_imagenet",
    "tiered_imagenet",
    "cub",
]
