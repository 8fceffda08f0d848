"""Results as Markdown: a module for each page, named after it, with its tables in TABLES."""
