"""Vectors of many dimensions as points of a plane: principal components, the same for the same vectors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def plane(vectors: npt.NDArray[np.float32]) -> tuple[npt.NDArray[np.float64], float]:
    """Points (rows, 2) of ``vectors`` (rows, dim), and the share of their variance that the plane holds.

    The two directions of the largest variance; of each, the coordinate that is largest in size is positive. Zeros where
    the vectors differ in fewer directions.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    top = directions[:, ::-1][:, :2]
    top = top * np.sign(top[np.abs(top).argmax(axis=0), np.arange(top.shape[1])])
    points = np.zeros((len(vectors), 2))
    points[:, : top.shape[1]] = centred @ top
    total = float(values.clip(min=0.0).sum())
    return points, float(values[::-1][:2].clip(min=0.0).sum() / total) if total > 0.0 else 1.0
