"""Training of the acoustic model, text to mel: its data, Lightning module, recipe and report."""
