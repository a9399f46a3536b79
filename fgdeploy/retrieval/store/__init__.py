"""The index on disk: SQLite holds the items, derived files the codes that are scanned."""
