"""Compiled loops of Adam on a few rows of a table, while the other rows lag behind.

A row without a gradient moves on along its momentum: in each step by its mean over the root of its square, both of
which only decay. So many such steps can be taken as one: their sizes add up, and only the root needs an approximation.
"""

from __future__ import annotations

import numpy as np
from numba import njit


@njit(nogil=True, cache=True)
def tabulate_lags(step, learning_rate, keep_mean, keep_square, lags):
    """Tabulate the one step that brings a row up to `step` when it lags 0, 1, 2 … steps behind.

    In each missed step s a row moves by w(s) m / (q(s) v + epsilon), where m is its mean and v the root of its square
    before them. The sum over s is evaluated at two values of q, their mean (weighted by w) plus and minus their
    standard deviation. The error is of third order in the deviation: some 1e-5 of a step from the 500th step on.

    Args:
        step: number of the step to come up to.
        learning_rate, keep_mean, keep_square: Adam's step size and decay rates.
        lags: float32 (lags, 5), filled with half the sum of w, both q, and the decay of mean and square.
    """
    weight, first, second = 0.0, 0.0, 0.0
    lags[0] = 0.0, 1.0, 1.0, 1.0, 1.0
    for lag in range(1, lags.shape[0]):
        missed = step - lag + 1
        size, unbias = learning_rate / (1.0 - keep_mean**missed), (1.0 - keep_square**missed) ** -0.5
        weight = keep_mean * (size + weight)
        first = keep_mean * keep_square**0.5 * (size * unbias + first)
        second = keep_mean * keep_square * (size * unbias * unbias + second)
        mean = first / weight
        spread = max(second / weight - mean * mean, 0.0) ** 0.5
        lags[lag] = 0.5 * weight, mean - spread, mean + spread, keep_mean**lag, keep_square**lag


@njit(nogil=True, cache=True, error_model="numpy")
def catch_up_rows(first, last, rows, step, last_steps, lags, epsilon, table, mean, square):
    """Bring `rows[first:last]` of a table and its moments to `step`; `last_steps` is the step each row has come to."""
    for i in range(first, last):
        row = rows[i]
        if last_steps[row] == step:
            continue
        half, low, high, keep_mean, keep_square = lags[step - last_steps[row]]
        last_steps[row] = step
        values, means, squares = table[row], mean[row], square[row]
        for j in range(values.size):
            low_root, high_root = np.sqrt(squares[j]) * low + epsilon, np.sqrt(squares[j]) * high + epsilon
            values[j] -= half * means[j] * (low_root + high_root) / (low_root * high_root)
            means[j] *= keep_mean
            squares[j] *= keep_square


@njit(nogil=True, cache=True, error_model="numpy")
def step_rows(first, last, rows, gradient, rates, table, mean, square):
    """A step of `adam_rows` on `rows[first:last]` alone; `gradient` (rows, width) is in the order of `rows`."""
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for i in range(first, last):
        values, means, squares, row_gradient = table[rows[i]], mean[rows[i]], square[rows[i]], gradient[i]
        for j in range(values.size):
            means[j] = keep_mean * means[j] + add_mean * row_gradient[j]
            squares[j] = keep_square * squares[j] + add_square * row_gradient[j] * row_gradient[j]
            values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)


@njit(nogil=True, cache=True, error_model="numpy")  # Python's check of each division would cost four times as much
def adam_rows(first, last, positions, gradient, rates, table, mean, square):
    """A step of Adam on rows first … last - 1 of a table whose gradient is zero except in some rows.

    Args:
        positions: int32, the position of each row's gradient in `gradient`; -1 if it is zero.
        gradient: float32 (rows with a gradient, width).
        rates: float32: how much of the mean is kept and how much of the gradient is added to it, the same for the
            square, the step size over the mean's bias, one over the root of the square's bias, and epsilon.
        table, mean, square: float32 (rows, width), the table and its moments; updated in place.
    """
    keep_mean, add_mean, keep_square, add_square, size, unbias, epsilon = rates
    for row in range(first, last):
        values, means, squares = table[row], mean[row], square[row]
        if positions[row] >= 0:
            row_gradient = gradient[positions[row]]
            for j in range(values.size):
                means[j] = keep_mean * means[j] + add_mean * row_gradient[j]
                squares[j] = keep_square * squares[j] + add_square * row_gradient[j] * row_gradient[j]
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
        else:
            for j in range(values.size):
                means[j] *= keep_mean
                squares[j] *= keep_square
                values[j] -= size * means[j] / (np.sqrt(squares[j]) * unbias + epsilon)
