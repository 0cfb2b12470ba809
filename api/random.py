"""Random state (`torch.random`)."""

from __future__ import annotations

from .frontends.python.random import default_generator, fork_rng, manual_seed

seed = default_generator.seed
initial_seed = default_generator.initial_seed
get_rng_state = default_generator.get_state
set_rng_state = default_generator.set_state

__all__ = ["fork_rng", "get_rng_state", "initial_seed", "manual_seed", "seed", "set_rng_state"]
