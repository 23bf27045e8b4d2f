"""The proof: what `make test` runs, on how many processors, in which order, and what it costs.

`python -m quartet.proof` runs it, stage after stage (`orphans`: with what they leave running).
`plugin` is what pytest loads: it takes the
rest from `cost` (processor seconds, test by test), `order` (what runs first, and together) and
`change` (what a change can have broken).
"""
