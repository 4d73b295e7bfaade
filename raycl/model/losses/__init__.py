"""Objectives, one a file: vectors, the column of each row's own item and log-probabilities to a scalar.

The words of all of them: ``users`` (rows, dim) and ``items`` (columns, dim) are unit vectors; ``own`` (rows,) is the
column of each row's item; ``negative`` (rows, columns) says which columns are negatives of a row, and never marks its
own; ``log_q`` (columns,) is the log-probability that a draw brings a column's item, or None where nothing is to be
corrected; ``weights`` (rows,) are divided by the number of rows and not by their sum, so that equal parts of a batch
average to the whole. A row without negatives contributes nothing to what compares with negatives, and no NaN.
"""
