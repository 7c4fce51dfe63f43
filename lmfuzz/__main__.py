"""``python -m lmfuzz``."""

from lmfuzz.cli import main

if __name__ == "__main__":
    main()
