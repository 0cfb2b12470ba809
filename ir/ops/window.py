"""Windows over the last axes: what pooling is made of. Geometry as in `_geometry`."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..attrs import Attr
from ..build import Builder
from ..dims import product
from ..dtypes import i64
from ..errors import AttributeValueError, ShapeError
from ..node import Node
from ..opdef import Kind, OpDef, register
from ..types import TensorType, Type
from ._common import Array, check_extents, ints, one, require, show, tensor, wide
from ._geometry import check_geometry, cropped, out_extents, padded, padded_zeros, taps
