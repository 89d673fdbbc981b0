"""Networks trained or given, measured on the same pictures and compared."""
