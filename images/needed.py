"""Print what the project needs in an image: ``python3 needed.py pyproject.toml EXTRA...``, one requirement a line.

The versions come from ``requirements.lock``, handed to pip as constraints, so the tools for development stay out of the
image. kfp is left out: a component needs it without its own requirements at run time, which would pin half the image,
and the Containerfile installs it that way.
"""

import re
import sys
import tomllib
from pathlib import Path

LEFT_OUT = {"kfp", "kfp-kubernetes"}


def needed(pyproject: Path, extras: list[str]) -> list[str]:
    """The requirements of the project and of some of its extras."""
    project = tomllib.loads(pyproject.read_text())["project"]
    requirements = list(project["dependencies"])
    for extra in extras:
        requirements += of_extra(project, extra)
    return [line for line in requirements if name_of(line) not in LEFT_OUT]


def of_extra(project: dict, extra: str) -> list[str]:
    """The requirements of an extra; one of the project itself stands for those of the extras that it names."""
    requirements = []
    for line in project["optional-dependencies"][extra]:
        own = re.fullmatch(rf"{project['name']}\[([^]]+)\]", line)
        requirements += [one for name in own[1].split(",") for one in of_extra(project, name.strip())] if own else [line]
    return requirements


def name_of(requirement: str) -> str:
    """A requirement's project, without extras and versions."""
    return re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0].lower()


if __name__ == "__main__":
    print("\n".join(needed(Path(sys.argv[1]), sys.argv[2:])))
