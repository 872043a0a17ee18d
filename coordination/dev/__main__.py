"""`python -m coordination.dev livekit-server`: finds or provides a livekit-server and prints where it is.

For Makefiles and scripts: progress goes to stderr, the program's path (or the image, when Docker runs it) to stdout.
Exit status 0 when there is one, 1 with what to install when there is not, 2 for a wrong command line.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from coordination.dev.errors import DevError
from coordination.dev.livekit_program import DOCKER_IMAGE, Source, provide_program


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m coordination.dev", description=__doc__)
    parser.add_argument("component", choices=["livekit-server"])
    parser.add_argument("--program-only", action="store_true", help="a file that can be run; Docker doesn't count")
    options = parser.parse_args(arguments)
    try:
        program = provide_program(_tell, docker=not options.program_only)
    except DevError as missing:
        print(missing, file=sys.stderr)
        return 1
    print(DOCKER_IMAGE if program.source is Source.DOCKER else program.executable)
    return 0


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
