"""What the package bundles, as pip's requirements: requirements.py PYPROJECT_TOML"""

import sys
import tomllib
from pathlib import Path

told = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))
project = told["project"]
print(*told["build-system"]["requires"], *project["dependencies"], *project["optional-dependencies"]["embedded"], sep="\n")
