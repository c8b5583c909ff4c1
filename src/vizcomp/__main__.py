"""`python -m vizcomp` and the `vizcomp` command."""

from vizcomp.cli import main

if __name__ == "__main__":
    main()
