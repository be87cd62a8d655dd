"""`baldwhisper bench`: how fast a model is, next to its teacher and next to what limits it.

A benchmark is a list of cases (cases.py). Every contender runs a case in a process of its own
(children.py, worker.py), the contenders take turns, and what is compared is one round of each
(timing.py). runtimes.py and mlx_whisper.py say how each of them does what a case asks for;
ceilings.py, costs.py and primitives.py say how much better it could be at most.
"""
