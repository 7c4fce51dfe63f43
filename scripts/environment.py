"""The interpreter of the checkout's own environment, for scripts that any Python may start."""

import os
import sys
from pathlib import Path

VENV = Path(__file__).resolve().parent.parent / ".venv"


def enter() -> None:
    """Start the script again with the interpreter that ./scripts/setup made, when this is another one."""
    python = VENV / "bin" / "python"
    if Path(sys.prefix).resolve() == VENV.resolve():
        return
    if not python.exists():
        sys.exit(f"{Path(sys.argv[0]).name}: there is no .venv here yet; run ./scripts/setup first")
    os.execv(python, [str(python), *sys.argv])
