"""The command `baldwhisper`: options, help and messages; the work is done elsewhere."""
