"""What a notebook imports: data, plots, the parity between tracks, the checks of exercises.

Nothing in here hides a framework: what a learner came to learn stands in the notebook itself.
"""
