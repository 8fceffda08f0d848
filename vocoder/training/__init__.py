"""Training. The only package here that imports Lightning; import its modules by name.

A crop passes through `data` (a corpus decoded once, cropped at random), `module` (optimiser,
validation) and `losses`. `callbacks` keep the averaged and the best weights, the history, the
progress line and what a run resumes from; `run` has its lock, record and resume files, `report`
its result. `recipe` is all of this as a command. `acoustic` and `restoration` are the recipes of
the acoustic model and of the restoring flow.
"""
