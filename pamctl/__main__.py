"""`python -m pamctl` is `pamctl`."""

from pamctl.cli.main import run

run()
