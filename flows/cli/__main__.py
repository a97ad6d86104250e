"""`python -m flows.cli`, and torchrun's way in."""

from flows.cli.main import main

main()
