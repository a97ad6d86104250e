"""How work uses the machine."""
