"""A self-contained page in two languages: its parts, its pictures, its style. Nothing is fetched, every value is escaped."""
