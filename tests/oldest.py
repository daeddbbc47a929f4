"""Print pip constraints that hold every dependency of xtec to its lower bound: `make test-oldest`.

torch is left out: constraints-cpu.txt gives the one build that is small enough for a test.
"""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
print("pandas<3")  # of which an xarray as old as that knows nothing
for line in project["dependencies"]:
    requirement = Requirement(line)
    (bound,) = requirement.specifier
    if requirement.name != "torch":
        print(f"{requirement.name}=={bound.version}")
