"""`python -m fgdeploy`."""

from fgdeploy.cli import main

if __name__ == "__main__":
    main()
