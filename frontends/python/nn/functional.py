"""All functions of `nn.functional` under PyTorch's names."""

from __future__ import annotations

from typing import Any

from ..tensor import Tensor
from .activation_functions import (
    celu,
    elu,
    gelu,
    glu,
    gumbel_softmax,
    hardshrink,
    hardsigmoid,
    hardswish,
    hardtanh,
    leaky_relu,
    log_softmax,
    logsigmoid,
    mish,
    prelu,
    relu,
    relu6,
    rrelu,
    selu,
    sigmoid,
    silu,
    softmax,
    softmin,
    softplus,
    softshrink,
    softsign,
    tanh,
    tanhshrink,
    threshold,
)
from .class_loss_functions import cross_entropy, nll_loss
from .distance_functions import cosine_similarity, pairwise_distance, scaled_dot_product_attention
from .dropout_functions import (
    alpha_dropout,
    dropout,
    dropout1d,
    dropout2d,
    dropout3d,
    feature_alpha_dropout,
)
from .linear_functions import (
    bilinear,
    conv1d,
    conv2d,
    conv_transpose1d,
    conv_transpose2d,
    embedding,
    linear,
    one_hot,
)
from .loss_functions import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    cosine_embedding_loss,
    gaussian_nll_loss,
    hinge_embedding_loss,
    huber_loss,
    kl_div,
    l1_loss,
    margin_ranking_loss,
    mse_loss,
    poisson_nll_loss,
    smooth_l1_loss,
    soft_margin_loss,
    triplet_margin_loss,
)
from .norm_functions import (
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response_norm,
    normalize,
    rms_norm,
)
from .pool_functions import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool1d,
    adaptive_max_pool2d,
    avg_pool1d,
    avg_pool2d,
    max_pool1d,
    max_pool1d_with_indices,
    max_pool2d,
    max_pool2d_with_indices,
)
from .reporting import scoped
from .shape_functions import interpolate, pad, pixel_shuffle


def _in_place(f: Any) -> Any:
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return f(input, *args, inplace=True, **kwargs)  # type: ignore[no-any-return]

    call.__name__, call.__doc__ = f"{f.__name__}_", f"In-place `{f.__name__}`."
    return call


relu_, elu_, selu_ = _in_place(relu), _in_place(elu), _in_place(selu)
leaky_relu_, hardtanh_ = _in_place(leaky_relu), _in_place(hardtanh)
upsample = interpolate

# Functions of several operators, under whose names dumps group them.
_COMPOSITES = (
    adaptive_avg_pool1d, adaptive_avg_pool2d, adaptive_max_pool1d, adaptive_max_pool2d, alpha_dropout, avg_pool1d,
    avg_pool2d, batch_norm, binary_cross_entropy, binary_cross_entropy_with_logits, celu, cosine_embedding_loss,
    cosine_similarity, cross_entropy, dropout, dropout1d, dropout2d, dropout3d, elu, gaussian_nll_loss, gelu,
    group_norm, gumbel_softmax, hardsigmoid, hardswish, hinge_embedding_loss, huber_loss, instance_norm, kl_div,
    l1_loss, layer_norm, local_response_norm, log_softmax, logsigmoid, margin_ranking_loss, mish, mse_loss, nll_loss,
    normalize, one_hot, pad, pairwise_distance, poisson_nll_loss, rms_norm, scaled_dot_product_attention, selu, silu,
    smooth_l1_loss, soft_margin_loss, softmax, softmin, softplus, triplet_margin_loss,
)
globals().update({f.__name__: scoped(f) for f in _COMPOSITES})

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "alpha_dropout",
    "avg_pool1d",
    "avg_pool2d",
    "batch_norm",
    "bilinear",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "celu",
    "conv1d",
    "conv2d",
    "conv_transpose1d",
    "conv_transpose2d",
    "cosine_embedding_loss",
    "cosine_similarity",
    "cross_entropy",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "elu",
    "elu_",
    "embedding",
    "feature_alpha_dropout",
    "gaussian_nll_loss",
    "gelu",
    "glu",
    "group_norm",
    "gumbel_softmax",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "hardtanh_",
    "hinge_embedding_loss",
    "huber_loss",
    "instance_norm",
    "interpolate",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "leaky_relu",
    "leaky_relu_",
    "linear",
    "local_response_norm",
    "log_softmax",
    "logsigmoid",
    "margin_ranking_loss",
    "max_pool1d",
    "max_pool1d_with_indices",
    "max_pool2d",
    "max_pool2d_with_indices",
    "mish",
    "mse_loss",
    "nll_loss",
    "normalize",
    "one_hot",
    "pad",
    "pairwise_distance",
    "pixel_shuffle",
    "poisson_nll_loss",
    "prelu",
    "relu",
    "relu6",
    "relu_",
    "rms_norm",
    "rrelu",
    "scaled_dot_product_attention",
    "selu",
    "selu_",
    "sigmoid",
    "silu",
    "smooth_l1_loss",
    "soft_margin_loss",
    "softmax",
    "softmin",
    "softplus",
    "softshrink",
    "softsign",
    "tanh",
    "tanhshrink",
    "threshold",
    "triplet_margin_loss",
    "upsample",
]
