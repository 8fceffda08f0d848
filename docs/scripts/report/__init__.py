"""Results as Markdown; each module has its tables in TABLES."""
