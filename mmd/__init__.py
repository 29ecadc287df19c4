"""mmd runs local language models as systemd user units: what fits stays loaded."""

__version__ = "0.2.0"
