"""``python -m service`` is the same as ``burnish``."""

from service.cli import main

if __name__ == "__main__":
    main()
