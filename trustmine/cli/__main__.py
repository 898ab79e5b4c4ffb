"""`python -m trustmine.cli`."""

from trustmine.cli import main

if __name__ == "__main__":  # worker processes import the main module again
    main()
