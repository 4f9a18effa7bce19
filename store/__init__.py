"""What we hold: SQL tables, spool files, catalogue."""
