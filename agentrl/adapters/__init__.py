"""Doors to other trainers: our credit in theirs, and our worlds as theirs."""
