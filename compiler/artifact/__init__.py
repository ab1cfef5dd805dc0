"""What a compile produces: the package of a model, its library, header, weights and manifest."""

from fluxc.compiler.artifact.package import write_package

__all__ = ["write_package"]
