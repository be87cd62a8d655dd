"""`baldwhisper evaluate`: how many words a model gets wrong, and how sure that is.

command.py reads the command line and dataset.py the speech, listening.py runs models over it, and
hypotheses.py keeps what they heard, so that a killed run goes on. Texts become comparable in
normalizers.py and are compared in scoring.py; bootstrap.py says how far the rates could be off,
report.py brings all of it together, table.py and alignment.py show it.
"""
