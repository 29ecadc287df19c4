"""Print the requirements to build mmd's wheel and to bundle: requirements.py PYPROJECT_TOML"""

import sys
import tomllib
from pathlib import Path

pyproject = tomllib.loads(Path(sys.argv[1]).read_text("utf-8"))
project = pyproject["project"]
bundled = [*project["dependencies"], *project["optional-dependencies"]["embedded"]]
print(*pyproject["build-system"]["requires"], *bundled, sep="\n")
