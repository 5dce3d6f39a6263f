"""Rows of one's own (`grow --data`): read from files, brought into the forms of batches/rows.py, made to fit."""
