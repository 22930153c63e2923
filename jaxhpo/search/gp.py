"""A Gaussian process whose kernel forgets: what is known of a point fades with time.

Source: Bogunovic et al. 2016 (arXiv 1601.06650); Parker-Holder et al. 2020 (arXiv 2002.02518).
"""

import itertools
from dataclasses import dataclass

import numpy as np

LENGTHS = (0.02, 0.05, 0.1, 0.3, 1.0, 3.0)
FORGETTING = (1e-5, 0.1, 0.5)
NOISES = (1e-3, 1e-1, 1.0)


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
        return self.of(*distances(a, b))

    def of(self, apart: np.ndarray, time: np.ndarray) -> np.ndarray:
        """The kernel of squared distances and of time differences."""
        return self.variance * np.exp(-apart / self.length) * (1 - self.forgetting) ** (time / 2)


def distances(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Squared distances of all columns but the first, and differences of the first."""
    p, q = a[:, 1:], b[:, 1:]
    apart = (p**2).sum(axis=1)[:, None] + (q**2).sum(axis=1)[None] - 2 * p @ q.T
    return np.maximum(apart, 0.0), np.abs(a[:, None, 0] - b[None, :, 0])


@dataclass(frozen=True)
class Process:
    """What is known at x f64[n, 1 + k]: `inverse` f64[n, n] is that of the noisy kernel there."""

    kernel: Kernel
    x: np.ndarray
    inverse: np.ndarray

    @classmethod
    def at(cls, kernel: Kernel, x: np.ndarray) -> "Process":
        gram = kernel(x, x) + kernel.variance * kernel.noise * np.eye(len(x))
        return cls(kernel, x, np.linalg.inv(gram))

    def mean(self, y: np.ndarray, at: np.ndarray) -> np.ndarray:
        """f64[m] at `at` f64[m, 1 + k], where y f64[n] was seen."""
        return self.kernel(at, self.x) @ (self.inverse @ y)

    def deviation(self, at: np.ndarray) -> np.ndarray:
        """f64[m]; it does not depend on what was seen, only on where."""
        across = self.kernel(self.x, at)
        variance = self.kernel.variance - (across * (self.inverse @ across)).sum(axis=0)
        return np.sqrt(np.maximum(variance, 0.0))


def fit(x: np.ndarray, y: np.ndarray) -> Kernel:
    """The kernel under which y f64[n] at x is most likely, on a grid of lengths, fading and noise.

    The variance that goes with each is known in closed form.
    """
    apart, time = distances(x, x)
    best, highest = Kernel(), -np.inf
    for length, forgetting, noise in itertools.product(LENGTHS, FORGETTING, NOISES):
        gram = Kernel(1.0, length, forgetting).of(apart, time) + noise * np.eye(len(x))
        root = np.linalg.cholesky(gram)
        whitened = np.linalg.solve(root, y)
        variance = max(float(whitened @ whitened) / len(y), 1e-12)
        likelihood = -0.5 * len(y) * np.log(variance) - np.log(np.diag(root)).sum()
        if likelihood > highest:
            best, highest = Kernel(variance, length, forgetting, noise), likelihood
    return best
