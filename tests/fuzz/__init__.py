"""Damaged and hostile input by the thousand; see `docs/reliability.md`."""
