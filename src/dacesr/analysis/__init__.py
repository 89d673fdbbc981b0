"""What the networks see: measurements, tables and figures."""
