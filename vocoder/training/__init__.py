"""Training: crops of a corpus, objectives, the Lightning module, its callbacks, the recipe.

The only package here that imports lightning. Import its modules by name (`vocoder.training.module`,
...).
"""
