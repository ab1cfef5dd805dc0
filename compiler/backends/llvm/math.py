"""The transcendental functions of `LlvmScalar`: one name each, whatever file it is written in."""

from __future__ import annotations
