"""mmd runs local language models as systemd user units, one on the GPU at a time."""

__version__ = "0.2.0"
