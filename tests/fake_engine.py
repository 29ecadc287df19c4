"""The fake engine at the path that scripts outside of this repository run and import; see tests/fakes/engine.py."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # -I leaves this file's folders out of the module path

from tests.fakes.engine import install_fake_llama_server, main

__all__ = ["install_fake_llama_server", "main"]

if __name__ == "__main__":
    main(sys.argv[1:])
