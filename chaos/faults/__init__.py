"""Faults as plain functions, each with its proof and its heal; usable as Chaos Toolkit's "python" providers. See
README.md."""

from chaos.faults.base import FaultNotApplied, Skip

__all__ = ["FaultNotApplied", "Skip"]
