"""Training. The only package here that imports Lightning; import its modules by name.

A batch passes through `prepared` (a corpus decoded once), `crops` (random crops and held-out
excerpts), `module` (optimiser, validation) and `losses`. `callbacks` keep the averaged and the best
weights, the history and the progress line, `resume` the files that a run resumes from, `run_folder`
what made it; `report` writes its result. `recipe` is all of this as a command, with the shared
`options`. `acoustic` is the acoustic model's half.
"""
