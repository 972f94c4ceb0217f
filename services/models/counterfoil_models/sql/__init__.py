"""The stores on a relational database, by SQLAlchemy Core."""
