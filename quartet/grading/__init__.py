"""Grade exercise notebooks: the parent asks and judges, a child process runs the learner's code.

`submission` reads a notebook, `child` runs its cells and calls its functions, `wire` carries
questions and answers between the two, `judge` compares and counts.
"""
