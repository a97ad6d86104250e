"""The command line as `python -m flows.cli`, which torchrun uses."""

from flows.cli.main import main

main()
