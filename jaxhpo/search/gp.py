"""A Gaussian process whose kernel forgets: what is known of a point fades with time.

Source: Bogunovic et al. 2016 (arXiv 1601.06650); Parker-Holder et al. 2020 (arXiv 2002.02518).
"""

import itertools
from dataclasses import dataclass

import numpy as np

LENGTHS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)
FORGETTING = (1e-5, 0.05, 0.2, 0.5)
NOISES = (1e-4, 1e-2, 1e-1, 1.0)


@dataclass(frozen=True)
class Kernel:
    """variance * exp(-d^2 / length) * (1 - forgetting)^(|t - t'| / 2), plus noise on the diagonal.

    d is the distance of all columns but the first, which is the time. `noise` is a share of the
    variance.
    """

    variance: float = 1.0
    length: float = 1.0
    forgetting: float = 0.1
    noise: float = 1e-2

    def __call__(self, a: np.ndarray, b: np.ndarray) -> np.ndarray:
        """f64[n, 1 + k], f64[m, 1 + k] -> f64[n, m], without the noise."""
        apart = ((a[:, None, 1:] - b[None, :, 1:]) ** 2).sum(axis=2)
        time = np.abs(a[:, None, 0] - b[None, :, 0])
        fading = (1 - self.forgetting) ** (time / 2)
        return self.variance * np.exp(-apart / self.length) * fading


def predict(
    kernel: Kernel, x: np.ndarray, y: np.ndarray, at: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation f64[m] at `at` f64[m, 1 + k], from y f64[n] at x."""
    gram = kernel(x, x) + kernel.variance * kernel.noise * np.eye(len(x))
    across = kernel(x, at)
    solved = np.linalg.solve(gram, np.column_stack([y, across]))
    mean = across.T @ solved[:, 0]
    variance = kernel.variance - (across * solved[:, 1:]).sum(axis=0)
    return mean, np.sqrt(np.maximum(variance, 0.0))


def fit(x: np.ndarray, y: np.ndarray) -> Kernel:
    """The kernel under which y f64[n] at x is most likely, on a grid of lengths, fading and noise.

    The variance that goes with each is known in closed form.
    """
    best, highest = Kernel(), -np.inf
    for length, forgetting, noise in itertools.product(LENGTHS, FORGETTING, NOISES):
        shape = Kernel(1.0, length, forgetting, noise)
        gram = shape(x, x) + noise * np.eye(len(x))
        _, logdet = np.linalg.slogdet(gram)
        variance = max(float(y @ np.linalg.solve(gram, y)) / len(y), 1e-12)
        likelihood = -0.5 * (len(y) * np.log(variance) + logdet)
        if likelihood > highest:
            best, highest = Kernel(variance, length, forgetting, noise), likelihood
    return best
