"""`python -m remctl`."""

from remctl.cli import main

if __name__ == "__main__":
    main()
