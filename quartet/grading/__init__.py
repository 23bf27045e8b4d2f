"""Grade exercise notebooks: the parent asks and judges, a child process runs the learner's code.

`submission` reads a notebook; `session` starts and asks the `child`, which a `sandbox` locks in;
`judge` compares and counts. For a class, `intake` finds what was handed in, `classroom` has it
graded by `worker`s, `store` keeps the results and `report` writes them out. `release` makes what is
handed out.
"""
