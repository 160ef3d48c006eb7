"""The wire, the clock, the stores and the command line."""
