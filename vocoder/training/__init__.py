"""Training. The only package here that imports Lightning; import its modules by name.

A batch passes through `prepared` (a corpus decoded once), `crops` (random crops and held-out
excerpts), `step` (the batch's likelihood and sample), `terms` (the loss) and `module` (optimiser,
validation). `callbacks` keep and show what a run produces, `report` writes its result, and `recipe`
is the command line around all of them. `acoustic` is the acoustic model's half.
"""
