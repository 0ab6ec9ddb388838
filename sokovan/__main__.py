"""`python -m sokovan` is the `sokovan` command."""

from sokovan.cli.main import main

if __name__ == "__main__":
    main()
