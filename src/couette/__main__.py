"""python -m couette: the command, where its script is not on the path."""

from couette.cli import main

if __name__ == "__main__":
    main()
