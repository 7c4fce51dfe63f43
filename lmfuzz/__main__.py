"""``python -m lmfuzz``."""

from lmfuzz.cli.main import main

if __name__ == "__main__":
    main()
