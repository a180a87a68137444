"""Run the command line with ``python -m fedcert.cli``."""

from fedcert.cli import main

if __name__ == "__main__":
    main()
