"""Functions on tensors, by family; `fluxc` re-exports them."""

from fluxc.ops import (
    activation,
    arrange,
    audio,
    contract,
    convolution,
    create,
    dtypes,
    elementwise,
    index,
    layout,
    masks,
    noise,
    normalisation,
    numbers,
    order,
    padding,
    patches,
    patterns,
    pooling,
    positions,
    resample,
    sample,
    spatial,
    statistics,
    update,
)
from fluxc.ops import attention as attention_family
from fluxc.ops import einsum as einsum_family
from fluxc.ops import reduce as reductions
from fluxc.ops.activation import *  # noqa: F403
from fluxc.ops.arrange import *  # noqa: F403
from fluxc.ops.attention import *  # noqa: F403
from fluxc.ops.audio import *  # noqa: F403
from fluxc.ops.contract import *  # noqa: F403
from fluxc.ops.convolution import *  # noqa: F403
from fluxc.ops.create import *  # noqa: F403
from fluxc.ops.dtypes import *  # noqa: F403
from fluxc.ops.einsum import *  # noqa: F403
from fluxc.ops.elementwise import *  # noqa: F403
from fluxc.ops.index import *  # noqa: F403
from fluxc.ops.layout import *  # noqa: F403
from fluxc.ops.masks import *  # noqa: F403
from fluxc.ops.noise import *  # noqa: F403
from fluxc.ops.normalisation import *  # noqa: F403
from fluxc.ops.numbers import *  # noqa: F403
from fluxc.ops.order import *  # noqa: F403
from fluxc.ops.padding import *  # noqa: F403
from fluxc.ops.patches import *  # noqa: F403
from fluxc.ops.patterns import *  # noqa: F403
from fluxc.ops.pooling import *  # noqa: F403
from fluxc.ops.positions import *  # noqa: F403
from fluxc.ops.reduce import *  # noqa: F403
from fluxc.ops.resample import *  # noqa: F403
from fluxc.ops.sample import *  # noqa: F403
from fluxc.ops.spatial import *  # noqa: F403
from fluxc.ops.statistics import *  # noqa: F403
from fluxc.ops.update import *  # noqa: F403

FAMILIES = (
    elementwise,
    numbers,
    activation,
    reductions,
    statistics,
    order,
    layout,
    arrange,
    patterns,
    index,
    update,
    create,
    dtypes,
    contract,
    einsum_family,
    convolution,
    attention_family,
    masks,
    positions,
    normalisation,
    noise,
    pooling,
    spatial,
    padding,
    patches,
    resample,
    sample,
    audio,
)
__all__ = [name for family in FAMILIES for name in family.__all__]
