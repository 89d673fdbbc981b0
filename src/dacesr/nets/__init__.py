"""Networks: plain modules that take tensors and parts, and never read files."""
