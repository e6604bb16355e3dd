"""The load of a drill: sluice-sender in the background. See README.md."""

from chaos.client.load import Load, LoadError

__all__ = ["Load", "LoadError"]
