"""`baldwhisper evaluate`: word and character error rates of a model, with confidence intervals.

dataset.py reads labelled speech, inference.py transcribes it, and hypotheses.py keeps the
transcripts, so that interrupted runs resume. Texts become comparable in normalizers.py and are
compared in scoring.py and utterances.py; bootstrap.py computes the intervals, report.py gathers
all figures, report_text.py and word_diff.py show them. The command is cli/evaluate.py.
"""
