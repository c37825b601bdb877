"""`python -m infosam`: the same as the command `infosam`."""

from infosam.cli import main

if __name__ == "__main__":
    main()
