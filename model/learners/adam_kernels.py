"""Compiled loops of Adam on a few rows of a table, while the others wait.

A row without a gradient goes on along its momentum, and each step's size is that momentum over the root of a square
that hardly changes meanwhile. So many steps of it are one: their sizes add up, and only the root needs care.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def sum_up_waiting(step, learning_rate, keep_mean, keep_square, waits):
    """For rows that have waited 0, 1, 2 … steps until `step`, what their waiting comes to.

    In step s of them a row moves by w(s) m / (q(s) v + epsilon), m its mean and v the root of its square before. The
    sum over s is taken at two q, their mean by weights w plus and minus their standard deviation; only what is of third
    order in the deviation is lost, some 1e-5 of a step from the 500th step on.

    Args:
        waits: float32 (waits, 5), filled with half the sum of w, both q, and what is left of mean and square.
    """
    weight, first, second = 0.0, 0.0, 0.0
    waits[0] = 0.0, 1.0, 1.0, 1.0, 1.0
    for wait in range(1, waits.shape[0]):
        missed = step - wait + 1
        size, unbias = learning_rate / (1.0 - keep_mean**missed), (1.0 - keep_square**missed) ** -0.5
        weight = keep_mean * (size + weight)
        first = keep_mean * keep_square**0.5 * (size * unbias + first)
        second = keep_mean * keep_square * (size * unbias * unbias + second)
        mean = first / weight
        spread = max(second / weight - mean * mean, 0.0) ** 0.5
        waits[wait] = 0.5 * weight, mean - spread, mean + spread, keep_mean**wait, keep_square**wait


@njit(nogil=True, cache=True, error_model="numpy")
def catch_up_rows(first, last, rows, step, moved, waits, epsilon, table, mean, square):
    """Bring `rows[first:last]` of a table and its moments to `step`; `moved` says to which step each row came last."""
    for i in range(first, last):
        row = rows[i]
        if moved[row] == step:
            continue
        half, low, high, keep_mean, keep_square = waits[step - moved[row]]
        moved[row] = step
        values, means, squares = table[row], mean[row], square[row]
        for j in range(values.size):
            low_root, high_root = np.sqrt(squares[j]) * low + epsilon, np.sqrt(squares[j]) * high + epsilon
            values[j] -= half * means[j] * (low_root + high_root) / (low_root * high_root)
            means[j] *= keep_mean
            squares[j] *= keep_square


@njit(nogil=True, cache=True, error_model="numpy")
def step_rows(first, last, rows, gradient, rates, table, mean, square):
    """A step of `adam_rows` on `rows[first:last]` alone, `gradient` theirs in their order."""
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for i in range(first, last):
        values, means, squares, slopes = table[rows[i]], mean[rows[i]], square[rows[i]], gradient[i]
        for j in range(values.size):
            means[j] = keep_mean * means[j] + add_mean * slopes[j]
            squares[j] = keep_square * squares[j] + add_square * slopes[j] * slopes[j]
            values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")  # Python's check of each division would cost four times as much
def adam_rows(first, last, place, gradient, rates, table, mean, square):
    """A step of Adam on rows first … last - 1 of a table, whose gradient is zero but in some rows.

    Args:
        place: int32, where in `gradient` a row's gradient is; -1 where it is zero.
        gradient: float32 (rows with a gradient, width).
        rates: float32, what is kept of the mean and what of the slope is added to it, the same of the square, the
            step's size over the mean's bias, one over the root of the square's bias, and epsilon.
        table, mean, square: float32 (rows, width), the table and its moments; changed.
    """
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for row in range(first, last):
        values, means, squares = table[row], mean[row], square[row]
        if place[row] >= 0:
            slopes = gradient[place[row]]
            for j in range(values.size):
                means[j] = keep_mean * means[j] + add_mean * slopes[j]
                squares[j] = keep_square * squares[j] + add_square * slopes[j] * slopes[j]
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
        else:
            for j in range(values.size):
                means[j] *= keep_mean
                squares[j] *= keep_square
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
