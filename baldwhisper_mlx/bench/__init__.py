"""`baldwhisper bench`: how fast a model is, compared with its teacher and with hardware limits.

A benchmark is a list of cases (cases.py) on clips cut from recordings (audio_clips.py). Every
contender runs a case in a process of its own (processes.py, worker.py); contenders take turns and
are compared round by round (runner.py, statistics.py). runtimes.py and mlx_whisper.py implement
the actions of a case; roofline.py and primitives.py say how fast a model could be at most. A
result is shown as text (report_text.py) or as a plot (plot.py).
"""
