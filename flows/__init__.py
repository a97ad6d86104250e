"""What people run: configuration, the command line, the Prefect flow and the reports that wire the stages."""
