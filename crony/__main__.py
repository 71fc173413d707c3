"""`python -m crony` is the `crony` command."""

from crony.cli.main import main

if __name__ == "__main__":
    main()
