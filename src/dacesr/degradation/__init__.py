"""Degradation: from sharp pictures to the ruined small ones that a restorer has to cope with."""
