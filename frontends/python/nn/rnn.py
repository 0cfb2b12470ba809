"""Recurrent layers and cells: RNN, LSTM, GRU."""

from __future__ import annotations

import math
from typing import Any

from ....ir.errors import DTypeError, ShapeError
from ..ops_join import cat, stack
from ..place import location
from ..tensor import Tensor
from ..trace import apply_mixed
from . import init
from . import rnn_functions as f
from .dropout_functions import dropout as drop
from .linear import parameter
from .module import Module
from .reporting import warn


class RNNBase(Module):
    """What recurrent layers share: parameters by layer and direction, and the order in which layers run."""

    def __init__(self, mode: str, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__()
        if mode not in f.STEPS:
            raise ValueError(f"Unrecognized RNN mode: {mode}")
        _check_options(input_size, hidden_size, num_layers, bias, batch_first, dropout, proj_size)
        self.mode, self.input_size, self.hidden_size, self.num_layers = mode, input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout = bias, batch_first, float(dropout)
        self.bidirectional, self.proj_size = bidirectional, proj_size
        gates, out = f.GATES[mode] * hidden_size, proj_size or hidden_size
        for level in range(num_layers):
            wide = input_size if level == 0 else out * (2 if bidirectional else 1)
            for suffix in self._suffixes(level):
                self._add(f"weight_ih{suffix}", (gates, wide), device, dtype)
                self._add(f"weight_hh{suffix}", (gates, out), device, dtype)
                if bias:
                    self._add(f"bias_ih{suffix}", (gates,), device, dtype)
                    self._add(f"bias_hh{suffix}", (gates,), device, dtype)
                if proj_size:
                    self._add(f"weight_hr{suffix}", (proj_size, hidden_size), device, dtype)
        self.reset_parameters()

    def _add(self, name: str, shape: tuple[int, ...], device: Any, dtype: Any) -> None:
        self.register_parameter(name, parameter(*shape, device=device, dtype=dtype))

    def _suffixes(self, level: int) -> list[str]:
        return [f"_l{level}", f"_l{level}_reverse"] if self.bidirectional else [f"_l{level}"]

    def reset_parameters(self) -> None:
        """Uniform on ±1/√hidden_size."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def flatten_parameters(self) -> None:
        """Nothing to do: parameters need no special layout."""

    @property
    def all_weights(self) -> list[list[Any]]:
        """The parameters of every layer and direction."""
        return [[p for name, p in self._parameters.items() if name.endswith(suffix)]
                for level in range(self.num_layers) for suffix in self._suffixes(level)]

    def _state_sizes(self) -> tuple[int, ...]:
        out = self.proj_size or self.hidden_size
        return (out, self.hidden_size) if self.mode == "LSTM" else (out,)

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """input [T, N, I] ([N, T, I] with batch_first, [T, I] unbatched) → outputs and last states."""
        self._check_input(input)
        batched = input.dim() == 3
        x = input if batched else input.unsqueeze(1)
        x = x.transpose(0, 1) if batched and self.batch_first else x
        given = self._states(hx, batched, x._shape[1])
        last: list[list[Tensor]] = [[] for _ in given]
        for level in range(self.num_layers):
            if level and self.dropout:
                x = drop(x, self.dropout, self.training)
            x = self._level(level, x, given, last)
        y = x if batched else x.squeeze(1)
        y = y.transpose(0, 1) if batched and self.batch_first else y
        states = [stack(s, 0) if batched else stack(s, 0).squeeze(1) for s in last]
        return y, tuple(states) if self.mode == "LSTM" else states[0]

    def _level(self, level: int, x: Tensor, given: list[Tensor | None], last: list[list[Tensor]]) -> Tensor:
        outputs = []
        for direction, suffix in enumerate(self._suffixes(level)):
            own = self._parameters
            at = level * (2 if self.bidirectional else 1) + direction
            states = [None if s is None else s[at] for s in given]
            weights = [own.get(f"{name}{suffix}")
                       for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_hr")]
            made = apply_mixed(f.layer, (x, *states, *weights), (self.mode, direction == 1))
            outputs.append(made[0])
            for kept, state in zip(last, made[1:], strict=True):
                kept.append(state)
        return outputs[0] if len(outputs) == 1 else cat(outputs, 2)

    def _layer_name(self) -> str:
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size})"

    def _check_input(self, input: Tensor) -> None:
        weight = self._parameters["weight_ih_l0"]
        assert weight is not None
        if input.dim() not in (2, 3):
            raise ShapeError(f"{self._layer_name()} expects an input of 2 (unbatched) or 3 dimensions, got shape "
                             f"{list(input.shape)}", location=location(),
                             hint="shape it [batch, time, features] and set batch_first=True")
        if input._shape[-1] != self.input_size:
            raise ShapeError(f"{self._layer_name()} needs {self.input_size} features in the last dimension, the input "
                             f"of shape {list(input.shape)} has {input._shape[-1]}", location=location(),
                             hint="for one feature a step use x.unsqueeze(-1)" if self.input_size == 1 else None)
        if input._dtype is not weight._dtype:
            raise DTypeError(f"{self._layer_name()}: the input is {input._dtype.long_name} but the weights are "
                             f"{weight._dtype.long_name}", location=location(),
                             hint=f"convert one of them, for example x.to({weight.dtype})")

    def _states(self, hx: Any, batched: bool, n: int) -> list[Tensor | None]:
        """The given states as [layers·directions, N, H], or None for zeros. Raises ShapeError."""
        sizes = self._state_sizes()
        if hx is None:
            return [None] * len(sizes)
        given = list(hx) if self.mode == "LSTM" else [hx]
        count = self.num_layers * (2 if self.bidirectional else 1)
        states: list[Tensor | None] = []
        for state, size in zip(given, sizes, strict=True):
            wanted = (count, n, size) if batched else (count, size)
            if state._shape != wanted:
                raise ShapeError(f"{self._layer_name()}: expected a hidden state of shape {list(wanted)}, got "
                                 f"{list(state.shape)}", location=location(),
                                 hint="its dimensions are [layers·directions, batch, features], also with "
                                      "batch_first=True")
            states.append(state if batched else state.unsqueeze(1))
        return states

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        for name, default in (("proj_size", 0), ("num_layers", 1), ("bias", True), ("batch_first", False),
                              ("dropout", 0), ("bidirectional", False)):
            value = getattr(self, name)
            if value != default:
                text += f", {name}={value}"
        return text


def _check_options(input_size: Any, hidden_size: Any, num_layers: int, bias: Any, batch_first: Any, dropout: Any,
                   proj_size: int) -> None:
    """Raises TypeError or ValueError in PyTorch's words."""
    if not isinstance(dropout, (int, float)) or isinstance(dropout, bool) or not 0 <= dropout <= 1:
        raise ValueError("dropout should be a number in range [0, 1] representing the probability of an element being "
                         "zeroed")
    if dropout > 0 and num_layers == 1:
        warn("dropout option adds dropout after all but last recurrent layer, so non-zero dropout expects "
                      f"num_layers greater than 1, but got dropout={dropout} and num_layers={num_layers}")
    for name, value, kind in (("bias", bias, bool), ("batch_first", batch_first, bool), ("input_size", input_size, int),
                              ("hidden_size", hidden_size, int)):
        if not isinstance(value, kind):
            raise TypeError(f"{name} should be of type {kind.__name__}, got: {type(value).__name__}")
    for name, value in (("input_size", input_size), ("hidden_size", hidden_size), ("num_layers", num_layers)):
        if value <= 0:
            raise ValueError(f"{name} must be greater than zero")
    if proj_size < 0:
        raise ValueError("proj_size should be a positive integer or zero to disable projections")
    if proj_size >= hidden_size:
        raise ValueError("proj_size has to be smaller than hidden_size")


class RNN(RNNBase):
    """Elman's network: h ← tanh(W·x + U·h + b), or with ReLU."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, nonlinearity: str = "tanh",
                 bias: bool = True, batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False,
                 device: Any = None, dtype: Any = None) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'.")
        super().__init__(f"RNN_{nonlinearity.upper()}", input_size, hidden_size, num_layers, bias, batch_first, dropout,
                         bidirectional, 0, device, dtype)
        self.nonlinearity = nonlinearity


class LSTM(RNNBase):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997), with forget gates."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, proj_size: int = 0,
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__("LSTM", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional,
                         proj_size, device, dtype)


class GRU(RNNBase):
    """Gated recurrent units (Cho et al., 2014)."""

    def __init__(self, input_size: int, hidden_size: int, num_layers: int = 1, bias: bool = True,
                 batch_first: bool = False, dropout: float = 0.0, bidirectional: bool = False, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__("GRU", input_size, hidden_size, num_layers, bias, batch_first, dropout, bidirectional, 0,
                         device, dtype)


class RNNCellBase(Module):
    """What cells share: one step of one layer."""

    _mode = "RNN_TANH"
    bias: bool

    def __init__(self, input_size: int, hidden_size: int, bias: bool, num_chunks: int, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__()
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        rows = num_chunks * hidden_size
        self.weight_ih = parameter(rows, input_size, device=device, dtype=dtype)
        self.weight_hh = parameter(rows, hidden_size, device=device, dtype=dtype)
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, parameter(rows, device=device, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform on ±1/√hidden_size."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _step(self, input: Tensor, hx: Any) -> Any:
        name = f"{type(self).__name__}({self.input_size}, {self.hidden_size})"
        if input.dim() not in (1, 2) or input._shape[-1] != self.input_size:
            raise ShapeError(f"{name} expects an input of shape [batch, {self.input_size}] or [{self.input_size}], got "
                             f"{list(input.shape)}", location=location())
        x = input if input.dim() == 2 else input.unsqueeze(0)
        count = 2 if self._mode == "LSTM" else 1
        given = [None] * count if hx is None else list(hx) if count == 2 else [hx]
        states = [x.new_zeros(x._shape[0], self.hidden_size) if s is None else
                  s if input.dim() == 2 else s.unsqueeze(0) for s in given]
        made = apply_mixed(f.cell, (x, *states, self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh),
                           (self._mode,))
        found = made if isinstance(made, tuple) else (made,)
        found = found if input.dim() == 2 else tuple(s.squeeze(0) for s in found)
        return found if count == 2 else found[0]

    def extra_repr(self) -> str:
        text = f"{self.input_size}, {self.hidden_size}"
        return text if self.bias else f"{text}, bias={self.bias}"

    def forward(self, input: Tensor, hx: Any = None) -> Any:
        """input [N, I] (or [I]) and the states before → the states after."""
        return self._step(input, hx)


class RNNCell(RNNCellBase):
    """One step of an Elman network."""

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, nonlinearity: str = "tanh",
                 device: Any = None, dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(f"Unknown nonlinearity: {nonlinearity}")
        self.nonlinearity = nonlinearity
        self._mode = f"RNN_{nonlinearity.upper()}"

    def extra_repr(self) -> str:
        text = super().extra_repr()
        return text if self.nonlinearity == "tanh" else f"{text}, nonlinearity={self.nonlinearity}"


class LSTMCell(RNNCellBase):
    """One step of an LSTM."""

    _mode = "LSTM"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)


class GRUCell(RNNCellBase):
    """One step of a GRU."""

    _mode = "GRU"

    def __init__(self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None,
                 dtype: Any = None) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)
