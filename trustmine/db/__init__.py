"""The database: opening it, the queue of rows, facts, recipes, and named reads."""
