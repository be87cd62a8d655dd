"""The command `baldwhisper-convert`: options, help and messages."""
