"""Transfer functions of trained SSMs beside HiPPO's, as numbers and as a Bode plot."""

import dataclasses
import pathlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from s5jax import mixers
from s5jax.analysis import figures
from s5jax.ssm import hippo

__all__ = ["Bode", "bode", "closest_hippo", "plot_bode", "plot_magnitudes", "write_bode"]


@dataclasses.dataclass(frozen=True)
class Bode:
    """The response of one output to one input of a layer, G(i omega) - D, and what it is compared with.

    Frequencies are in the unit of the layer's A (radians/time); its step sizes measure that time.
    """

    omega: Float[np.ndarray, " F"]
    layer: Complex[np.ndarray, " F"]
    start: Complex[np.ndarray, " F"]
    """The same layer before training."""
    hippo: Complex[np.ndarray, " F"]
    """The closest that HiPPO-LegS of as many states comes to `layer`: see `closest_hippo`."""
    nyquist: tuple[float, float]
    """pi / Delta of the largest and the least step size: what is faster than this, samples do not show."""

    @property
    def misfit(self) -> float:
        """||layer - hippo|| / ||layer|| over the frequencies."""
        return float(np.linalg.norm(self.layer - self.hippo) / np.linalg.norm(self.layer))

    @property
    def peak(self) -> tuple[float, float]:
        """Largest |G| of the layer, and its frequency."""
        at = np.argmax(np.abs(self.layer))
        return float(np.abs(self.layer[at])), float(self.omega[at])


def bode(
    mixer: ModuleType,
    options: Any,
    params: dict[str, Array],
    start: dict[str, Array],
    *,
    output: int = 0,
    input: int | None = None,
    points: int = 400,
) -> Bode:
    """Responses over all frequencies at which the layer has modes, and a decade to either side.

    Args:
      mixer: with `transfer_function`, `eigenvalues` and `time_step`.
      options: of the mixer.
      params: of the mixer, as trained.
      start: of the mixer, before training.
      output: feature that is read.
      input: feature that is driven; default: the same. Mixers with a system for each feature, s4 and s4d, have no
        response between different features.
      points: frequencies, evenly on a logarithmic scale; each mode's own, where narrow peaks are, come besides.

    Raises:
      ValueError: the mixer lacks one of these functions, there is no such feature, or no response between the two.
    """
    mixers.require(mixer, "transfer_function", "eigenvalues", "time_step")
    input = output if input is None else input
    features = params["D"].shape[0]
    if not (0 <= output < features and 0 <= input < features):
        raise ValueError(f"features run from 0 to {features - 1}, got output {output} and input {input}")
    modes = np.asarray(mixer.eigenvalues(params, options))
    omega = _grid(modes.ravel(), points)

    @jax.jit
    def respond(params: dict[str, Array], s: Complex[Array, " F"]) -> Complex[Array, " F"]:
        # Some frequencies at a time, since G is (F, H, H).
        G = jax.lax.map(lambda s: mixer.transfer_function(params, s, options)[output, input], s, batch_size=16)
        return G - (params["D"][output].astype(G.dtype) if output == input else 0)

    s = jnp.asarray(1j * omega, jnp.complex64)
    trained, before = (np.asarray(respond(p, s), np.complex128) for p in (params, start))
    if not np.abs(trained).any():
        raise ValueError(f"{mixer.__name__} has no response of feature {output} to feature {input}")
    steps = np.asarray(mixer.time_step(params, options), np.float64)
    if modes.ndim > 1:  # a system for each feature, with its own step size
        steps = steps[output]
    return Bode(
        omega=omega,
        layer=trained,
        start=before,
        hippo=closest_hippo(trained, omega, options.state_size, two_sided=not mixers.ability(mixer, "CAUSAL", options)),
        nyquist=(float(np.pi / steps.max()), float(np.pi / steps.min())),
    )


def _grid(modes: Complex[np.ndarray, " N"], points: int) -> Float[np.ndarray, " F"]:
    fastest = max(np.abs(modes).max(), 1.0)
    slowest = np.clip(np.abs(modes).min(), 1e-4, 0.1)
    even = np.geomspace(slowest, 10 * fastest, points)
    width = np.abs(modes.real)[:, None] * np.array([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0])
    peaks = (np.abs(modes.imag)[:, None] + width).ravel()
    return np.unique(np.concatenate([even, peaks[(peaks > even[0]) & (peaks < even[-1])]]))


def closest_hippo(
    response: Complex[np.ndarray, " F"], omega: Float[np.ndarray, " F"], n: int, *, two_sided: bool = False
) -> Complex[np.ndarray, " F"]:
    """C (i omega I - A)^-1 B of HiPPO-LegS with n states and the real readout C that fits a response best.

    Readouts are trained, and in bases that differ from layer to layer: a comparison of dynamics has to do without them.
    The fit is least squares over the frequencies given.

    Args:
      response: G(i omega).
      omega: frequencies, radians/time.
      n: HiPPO's states.
      two_sided: let a second readout act on the reversed system, C2 (-i omega I - A)^-1 B.
    """
    A, B, _ = hippo.legs(n)
    basis = np.stack([np.linalg.solve(1j * w * np.eye(n) - A, B.astype(complex)) for w in omega])
    if two_sided:
        basis = np.concatenate([basis, basis.conj()], axis=1)
    C, *_ = np.linalg.lstsq(
        np.concatenate([basis.real, basis.imag]), np.concatenate([response.real, response.imag]), rcond=None
    )
    return basis @ C


COLUMNS = ("layer", "start", "hippo")
HEADER = ("omega", *(f"{name}_{part}" for name in COLUMNS for part in ("dB", "degrees")))


def write_bode(results: Mapping[int, Bode], file: pathlib.Path, *, numbered: bool) -> None:
    """All numbers as CSV: omega, then magnitude in dB and phase in degrees of each curve.

    The tables of several layers stand one below the other; with `numbered` the layer's number is the first column.
    """
    rows = []
    for number, result in results.items():
        curves = [part for name in COLUMNS for part in _decibels_and_degrees(getattr(result, name))]
        table = np.stack([result.omega, *curves], axis=1).tolist()
        rows += [[number, *row] if numbered else row for row in table]
    figures.write_csv(file, ("layer", *HEADER) if numbered else HEADER, rows)


def _decibels_and_degrees(G: Complex[np.ndarray, " F"]) -> tuple[Float[np.ndarray, " F"], Float[np.ndarray, " F"]]:
    return 20 * np.log10(np.maximum(np.abs(G), 1e-12)), np.degrees(np.unwrap(np.angle(G)))


STYLES: dict[str, dict[str, Any]] = {
    "hippo": {"color": "#9aa5b1", "lw": 3.0, "label": "closest HiPPO-LegS"},
    "start": {"color": "#e0a458", "lw": 1.2, "label": "before training"},
    "layer": {"color": "#0b6e99", "lw": 1.4, "label": "trained"},
}
NYQUIST: dict[str, Any] = {"color": "#d1495b", "lw": 1, "ls": ":"}
NYQUIST_LABEL = "Nyquist frequency of the step sizes"


def _prepare(axes: Any, result: Bode) -> None:
    """Frequencies on a logarithmic axis, and from which on samples alias."""
    axes.axvspan(*result.nyquist, color=NYQUIST["color"], alpha=0.12, lw=0)
    for frequency in set(result.nyquist):
        axes.axvline(frequency, **NYQUIST)
    axes.set_xscale("log")
    figures.tidy(axes)


def plot_bode(result: Bode, file: pathlib.Path, title: str) -> None:
    """The Bode plot: magnitude above, phase below."""
    figure = figures.new(8, 5.4)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 2])
    for name, style in STYLES.items():
        decibels, degrees = _decibels_and_degrees(getattr(result, name))
        above.plot(result.omega, decibels, **style)
        below.plot(result.omega, degrees, **style)
    for axes in (above, below):
        _prepare(axes, result)
    above.lines[0].set_label(f"{STYLES['hippo']['label']} (misfit {result.misfit:.2g})")
    above.plot([], [], **NYQUIST, label=NYQUIST_LABEL)
    above.set_ylabel("|G| in dB")
    below.set_ylabel("phase in degrees")
    below.set_xlabel("frequency, radians per unit of the layer's time")
    above.legend(frameon=False, fontsize=8)
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)


def plot_magnitudes(results: Mapping[int, Bode], file: pathlib.Path, title: str) -> None:
    """The magnitudes of several layers, by their numbers, a panel for each, all with the same axes."""
    figure, panels = figures.panels(len(results), 3.4, 2.4, "frequency, radians / time", "|G| in dB")
    for axes, (number, result) in zip(panels, results.items(), strict=True):
        for name, style in STYLES.items():
            axes.plot(result.omega, _decibels_and_degrees(getattr(result, name))[0], **style)
        _prepare(axes, result)
        axes.set_title(f"layer {number} (misfit {result.misfit:.2g})", fontsize=9)
    panels[0].plot([], [], **NYQUIST, label=NYQUIST_LABEL)
    figures.add_legend(figure, columns=2)
    figure.suptitle(title, fontsize=10)
    figures.save(figure, file)
