"""The seven workloads as pure JAX functions: same names and shapes of parameters, same optimizers' arithmetic.

A step is one `jax.jit` with donated state, `step(state, x, y) -> (state, loss)`. Convolutions run in either layout;
weights keep PyTorch's `[out, in, h, w]`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from workloads import BLOCKS, CONTEXT, DECAY, HEADS, LAYERS, MOMENTUM, RATES, VOCABULARY, WIDTH, batch, weight

Params = dict[str, Any]
State = dict[str, Any]


# -- parameters -------------------------------------------------------------------------------------------------------


def _linear(name: str, inner: int, outer: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outer, inner), f"{name}.bias": (outer,)}


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a workload's parameters, as PyTorch names them."""
    match name:
        case "W1":
            return {"weight": (1, 1), "bias": (1,)}
        case "W2":
            return _linear("0", 784, 512) | _linear("2", 512, 512) | _linear("4", 512, 10)
        case "W3":
            found: dict[str, tuple[int, ...]] = {"0.weight": (32, 1, 3, 3), "0.bias": (32,)}
            found |= {"2.weight": (64, 32, 3, 3), "2.bias": (64,)}
            return found | _linear("6", 9216, 128) | _linear("8", 128, 10)
        case "W4":
            found = {"token.weight": (VOCABULARY, WIDTH), "position.weight": (CONTEXT, WIDTH)}
            for i in range(LAYERS):
                b = f"blocks.{i}"
                found |= _norm(f"{b}.norm1", WIDTH) | _norm(f"{b}.norm2", WIDTH)
                found |= _linear(f"{b}.qkv", WIDTH, 3 * WIDTH) | _linear(f"{b}.proj", WIDTH, WIDTH)
                found |= _linear(f"{b}.up", WIDTH, 4 * WIDTH) | _linear(f"{b}.down", 4 * WIDTH, WIDTH)
            return found | _norm("norm", WIDTH) | _linear("head", WIDTH, VOCABULARY)
        case "W5":
            found = {"lstm.weight_ih_l0": (512, 64), "lstm.weight_hh_l0": (512, 128)}
            found |= {"lstm.bias_ih_l0": (512,), "lstm.bias_hh_l0": (512,)}
            return found | _linear("head", 128, 10)
        case "W6":
            found = {"0.weight": (16, 3, 3, 3)} | _norm("1", 16)
            for i, (inner, outer, stride) in enumerate(BLOCKS, 3):
                found |= {f"{i}.conv1.weight": (outer, inner, 3, 3)} | _norm(f"{i}.bn1", outer)
                found |= {f"{i}.conv2.weight": (outer, outer, 3, 3)} | _norm(f"{i}.bn2", outer)
                if stride != 1:
                    found |= {f"{i}.short.0.weight": (outer, inner, 1, 1)} | _norm(f"{i}.short.1", outer)
            return found | _linear(f"{3 + len(BLOCKS) + 2}", 64, 10)
        case _:
            return _norm("0", 1024) | _norm("2", 1024)


# -- models -----------------------------------------------------------------------------------------------------------


def linear(p: Params, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"].T + p[f"{name}.bias"]


def layer_norm(p: Params, name: str, x: Any) -> Any:
    mean = x.mean(-1, keepdims=True)
    centred = x - mean
    scale = lax.rsqrt((centred * centred).mean(-1, keepdims=True) + 1e-5)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


class Images:
    """Operators over images in one layout."""

    def __init__(self, channels_last: bool) -> None:
        self.layout = "NHWC" if channels_last else "NCHW"
        self.space = (1, 2) if channels_last else (2, 3)
        self.channel = 3 if channels_last else 1

    def load(self, x: Any) -> Any:
        """An image in PyTorch's order, in this layout."""
        return x.transpose(0, 2, 3, 1) if self.channel == 3 else x

    def along_channels(self, v: Any) -> Any:
        return v if self.channel == 3 else v[:, None, None]

    def conv(self, x: Any, w: Any, stride: int = 1, padding: int = 0) -> Any:
        numbers = lax.conv_dimension_numbers(x.shape, w.shape, (self.layout, "OIHW", self.layout))
        return lax.conv_general_dilated(
            x, w, (stride, stride), [(padding, padding)] * 2, dimension_numbers=numbers
        )

    def batch_norm(self, p: Params, buffers: Params, name: str, x: Any) -> Any:
        axes = (0, *self.space)
        mean, var = x.mean(axes), x.var(axes)
        n = x.size / mean.size
        buffers[f"{name}.running_mean"] = 0.9 * buffers[f"{name}.running_mean"] + 0.1 * mean
        buffers[f"{name}.running_var"] = 0.9 * buffers[f"{name}.running_var"] + 0.1 * var * n / (n - 1)
        scale = p[f"{name}.weight"] * lax.rsqrt(var + 1e-5)
        shift = p[f"{name}.bias"] - mean * scale
        return x * self.along_channels(scale) + self.along_channels(shift)

    def pool(self, x: Any) -> Any:
        window = tuple(2 if i in self.space else 1 for i in range(4))
        return lax.reduce_window(x, -jnp.inf, lax.max, window, window, "VALID")

    def flatten(self, x: Any) -> Any:
        return (x.transpose(0, 3, 1, 2) if self.channel == 3 else x).reshape(x.shape[0], -1)


def cross_entropy(logits: Any, y: Any) -> Any:
    logs = jax.nn.log_softmax(logits)
    return -jnp.take_along_axis(logs, y[:, None], 1).mean()


def cnn(p: Params, x: Any, images: Images) -> Any:
    x = images.load(x)
    for name in ("0", "2"):
        x = jax.nn.relu(images.conv(x, p[f"{name}.weight"]) + images.along_channels(p[f"{name}.bias"]))
    return linear(p, "8", jax.nn.relu(linear(p, "6", images.flatten(images.pool(x)))))


def gpt(p: Params, tokens: Any) -> Any:
    n, t = tokens.shape
    x = p["token.weight"][tokens] + p["position.weight"][:t]
    mask = jnp.tril(jnp.ones((t, t), bool))
    for i in range(LAYERS):
        b = f"blocks.{i}"
        parts = linear(p, f"{b}.qkv", layer_norm(p, f"{b}.norm1", x)).reshape(n, t, 3, HEADS, WIDTH // HEADS)
        q, k, v = parts.transpose(2, 0, 3, 1, 4)
        scores = jnp.where(mask, q @ k.swapaxes(-1, -2) / math.sqrt(WIDTH // HEADS), -jnp.inf)
        out = jax.nn.softmax(scores) @ v
        x = x + linear(p, f"{b}.proj", out.swapaxes(1, 2).reshape(n, t, WIDTH))
        wide = jax.nn.gelu(linear(p, f"{b}.up", layer_norm(p, f"{b}.norm2", x)), approximate=False)
        x = x + linear(p, f"{b}.down", wide)
    return linear(p, "head", layer_norm(p, "norm", x))


def lstm(p: Params, x: Any) -> Any:
    inner = x @ p["lstm.weight_ih_l0"].T + p["lstm.bias_ih_l0"] + p["lstm.bias_hh_l0"]

    def cell(carry: Any, gates: Any) -> Any:
        h, c = carry
        i, f, g, o = jnp.split(gates + h @ p["lstm.weight_hh_l0"].T, 4, axis=1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), None

    zero = jnp.zeros((x.shape[0], 128), x.dtype)
    (h, _), _ = lax.scan(cell, (zero, zero), inner.swapaxes(0, 1))
    return linear(p, "head", h)


def resnet20(p: Params, buffers: Params, x: Any, images: Images) -> Any:
    x = images.conv(images.load(x), p["0.weight"], 1, 1)
    x = jax.nn.relu(images.batch_norm(p, buffers, "1", x))
    for i, (_, _, stride) in enumerate(BLOCKS, 3):
        out = images.conv(x, p[f"{i}.conv1.weight"], stride, 1)
        out = jax.nn.relu(images.batch_norm(p, buffers, f"{i}.bn1", out))
        out = images.batch_norm(p, buffers, f"{i}.bn2", images.conv(out, p[f"{i}.conv2.weight"], 1, 1))
        if stride != 1:
            x = images.batch_norm(p, buffers, f"{i}.short.1", images.conv(x, p[f"{i}.short.0.weight"], stride))
        x = jax.nn.relu(out + x)
    return linear(p, f"{3 + len(BLOCKS) + 2}", x.mean(images.space))


def _loss(name: str, images: Images) -> Callable[..., Any]:
    """`loss(params, buffers, x, y) -> (loss, buffers)`."""

    def loss(p: Params, buffers: Params, x: Any, y: Any) -> Any:
        buffers = dict(buffers)
        match name:
            case "W1":
                value = ((x @ p["weight"].T + p["bias"] - y) ** 2).mean()
            case "W2":
                hidden = jax.nn.relu(linear(p, "2", jax.nn.relu(linear(p, "0", x))))
                value = cross_entropy(linear(p, "4", hidden), y)
            case "W3":
                value = cross_entropy(cnn(p, x, images), y)
            case "W4":
                value = cross_entropy(gpt(p, x).reshape(-1, VOCABULARY), y.reshape(-1))
            case "W5":
                value = cross_entropy(lstm(p, x), y)
            case "W6":
                value = cross_entropy(resnet20(p, buffers, x, images), y)
            case _:
                out = layer_norm(p, "2", jax.nn.gelu(layer_norm(p, "0", x), approximate=False))
                value = ((out - y) ** 2).mean()
        return value, buffers

    return loss


# -- optimizers -------------------------------------------------------------------------------------------------------


def _sgd(rate: float, momentum: float, decay: float, state: State, grads: Params) -> State:
    p = state["params"]
    grads = {k: g + decay * p[k] for k, g in grads.items()} if decay else grads
    if not momentum:
        return state | {"params": {k: p[k] - rate * g for k, g in grads.items()}}
    moved = {k: momentum * state["momentum"][k] + g for k, g in grads.items()}
    return state | {"params": {k: p[k] - rate * m for k, m in moved.items()}, "momentum": moved}


def _adam(rate: float, decay: float, state: State, grads: Params) -> State:
    t = state["t"] + 1
    m = {k: 0.9 * state["m"][k] + 0.1 * g for k, g in grads.items()}
    v = {k: 0.999 * state["v"][k] + 0.001 * g * g for k, g in grads.items()}
    one, two = 1 - 0.9**t, 1 - 0.999**t

    def moved(k: str, p: Any) -> Any:
        return p * (1 - rate * decay) - rate / one * m[k] / (jnp.sqrt(v[k] / two) + 1e-8)

    return {"params": {k: moved(k, p) for k, p in state["params"].items()}, "m": m, "v": v, "t": t}


def build(
    name: str, *, size: int | None = None, channels_last: bool = False
) -> tuple[Callable[..., Any], State, tuple[Any, Any]]:
    """The jitted step, its first state, and the batch."""
    loss = _loss(name, Images(channels_last))
    params = {k: jnp.asarray(weight(k, s)) for k, s in shapes(name).items()}
    state: State = {"params": params}
    if name == "W6":
        state["momentum"] = {k: jnp.zeros_like(p) for k, p in params.items()}
    elif name not in ("W1", "W7"):
        state |= {"m": {k: jnp.zeros_like(p) for k, p in params.items()}, "t": jnp.float32(0)}
        state["v"] = {k: jnp.zeros_like(p) for k, p in params.items()}
    norms = [k[: -len(".bias")] for k in params if name == "W6" and params[k].ndim == 1 and k.endswith(".bias")]
    state["buffers"] = {f"{k}.running_mean": jnp.zeros_like(params[f"{k}.bias"]) for k in norms}
    state["buffers"] |= {f"{k}.running_var": jnp.ones_like(params[f"{k}.bias"]) for k in norms}

    def step(state: State, x: Any, y: Any) -> tuple[State, Any]:
        buffers = state["buffers"]
        core = {k: v for k, v in state.items() if k != "buffers"}
        (value, buffers), grads = jax.value_and_grad(loss, has_aux=True)(core["params"], buffers, x, y)
        rate = RATES[name]
        if name in ("W1", "W6", "W7"):
            momentum, decay = (MOMENTUM, DECAY) if name == "W6" else (0.0, 0.0)
            core = _sgd(rate, momentum, decay, core, grads)
        else:
            core = _adam(rate, 1e-2 if name == "W4" else 0.0, core, grads)
        return core | {"buffers": buffers}, value

    x, y = batch(name, size)
    y = y if y.dtype == np.float32 else y.astype(np.int32)
    x = x if x.dtype == np.float32 else x.astype(np.int32)
    return jax.jit(step, donate_argnums=0), state, (jnp.asarray(x), jnp.asarray(y))
