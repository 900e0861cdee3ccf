"""Computes the optimal perturbations of HiPPO-LegS for the usual sizes, and writes the table of the package."""

import argparse
import os
import pathlib
import sys
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: threads gain nothing with matrices this small

import numpy as np
from jaxtyping import Float

from s5jax.ssm import hippo, perturbation, ptd

SIZES = (2, 4, 8, 16, 32, 64, 128)

EXAMPLES = """examples:
  python projects/ptd/make_table.py --n 8 16 32                     prints what it finds beside the table that is there
  python projects/ptd/make_table.py --out=s5jax/ssm/ptd_legs.npz    all sizes, and writes the table

On one idle core, n = 64 takes some seconds and n = 128 about a minute. n = 256, which is not in the table, takes
minutes.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--n", type=int, nargs="+", default=list(SIZES), metavar="N", help="states, even (default: 2 4 8 ... 128)"
    )
    parser.add_argument("--out", type=pathlib.Path, metavar="FILE.npz", help="file for the table (default: none)")
    arguments = parser.parse_args()
    try:
        table: dict[str, Any] = {}
        for n in arguments.n:
            if n < 2 or n % 2:
                raise ValueError(f"--n must be even and at least 2, got {n}")
            table[str(n)] = row(n)
            print(describe(n, table[str(n)]), flush=True)
        if arguments.out is not None:
            np.savez(arguments.out, **table)
            print(f"table: {arguments.out}, {arguments.out.stat().st_size:,} bytes")
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def row(n: int) -> Float[np.ndarray, " x"]:
    """u (n,), w (n,) and the norms of the eigenvectors (n/2,) for HiPPO-LegS of n states, see `ptd.TABLE`."""
    A = hippo.legs(n)[0]
    _, V, E = perturbation.optimize(A, "kappa", ptd.default_kappa(n), ptd.MAX_REAL)
    return pack(V, E)


def pack(V: np.ndarray, E: np.ndarray) -> Float[np.ndarray, " x"]:
    """A row of the table. u and w have the same norm, and the first entry of w is positive."""
    left, s, right = np.linalg.svd(E)
    factor = np.sqrt(s[0]) * np.sign(right[0, 0])
    V = V * (np.sqrt(len(V)) / np.linalg.norm(V))
    return np.concatenate([factor * left[:, 0], factor * right[0], np.linalg.norm(V[:, : len(V) // 2], axis=0)])


def describe(n: int, found: Float[np.ndarray, " x"]) -> str:
    """The norm of a result, and its distance from the row in the table."""
    text = f"n = {n}: ||E||_2 / ||A||_2 {np.linalg.norm(found[:n]) ** 2 / np.linalg.norm(hippo.legs(n)[0], 2):.4f}"
    with np.load(ptd.TABLE) as table:
        if str(n) not in table:
            return f"{text}; not in the table"
        difference = np.abs(found - table[str(n)]).max() / np.abs(found).max()
    return f"{text}; {difference:.1e} from the table, relative to the largest entry"


if __name__ == "__main__":
    sys.exit(main())
