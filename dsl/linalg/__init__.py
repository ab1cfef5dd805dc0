"""Linear algebra: `fx.linalg.solve`, `cholesky`, `qr`, `eigh`, `svd`, ...

Matrices are the last two axes; axes before them are batches.  Every algorithm is a loop of the
compiled program over whole rows and columns, without a library behind it, in f32 or f64.

Derivatives are formulas over the results, and can be differentiated again.  They are not finite
where a factorisation is not differentiable: eigenvectors of equal eigenvalues, singular vectors of
equal singular values, solutions of singular systems.
"""

from fluxc.linalg.orthogonal import QRResult, qr
from fluxc.linalg.spectral import (
    EighResult,
    SVDResult,
    eigh,
    eigvalsh,
    matrix_rank,
    pinv,
    svd,
    svdvals,
)
from fluxc.linalg.standard import diagonal, trace
from fluxc.linalg.systems import (
    SlogdetResult,
    cholesky,
    det,
    inv,
    matrix_power,
    slogdet,
    solve,
    triangular_solve,
)
from fluxc.ops.arrange import matrix_transpose
from fluxc.ops.contract import matmul, outer, tensordot
from fluxc.ops.statistics import cross, matrix_norm, norm, vecdot, vector_norm

__all__ = [
    "EighResult", "QRResult", "SVDResult", "SlogdetResult", "cholesky", "cross", "det", "diagonal",
    "eigh", "eigvalsh", "inv", "matmul", "matrix_norm", "matrix_power", "matrix_rank",
    "matrix_transpose", "norm", "outer", "pinv", "qr", "slogdet", "solve", "svd", "svdvals",
    "tensordot", "trace", "triangular_solve", "vecdot", "vector_norm",
]  # fmt: skip
