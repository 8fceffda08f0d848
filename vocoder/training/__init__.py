"""Training. The only package here that imports Lightning; import its modules by name.

A batch passes through `prepared` (a corpus decoded once), `crops` (random crops and held-out
excerpts), `step` (the batch's likelihood and sample), `terms` (the loss) and `module` (optimiser,
validation). `callbacks` keep and show what a run produces, `resume` holds the files that it resumes
from, `run_folder` what made it, and `report` writes its result. `recipe` is all of this as a
command with the options of `options`; `faults` gives errors their sentences. `acoustic` is the
acoustic model's half.
"""
