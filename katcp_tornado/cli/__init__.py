"""The command ``katcp-tornado``; it needs the extra ``cli``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Optional

_EXTRA = ("click", "rich", "platformdirs", "tomli", "textual", "prompt_toolkit")


def main(args: Optional[Sequence[str]] = None) -> None:
    """Run the command with these arguments, by default those of the process, and exit."""
    try:
        from .commands import katcp_tornado
        from .terminal import invoke

        invoke(katcp_tornado, args)
    except ModuleNotFoundError as exc:
        name = (exc.name or "").partition(".")[0]
        if name not in _EXTRA:
            raise
        print(
            f'katcp-tornado: {name} is not installed; install it with: pip install "katcp_tornado[cli]"',
            file=sys.stderr,
        )
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
