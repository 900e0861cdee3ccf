"""S5: one multi-input, multi-output diagonal system a layer (Smith, Warrington, Linderman 2023, arXiv 2208.04933).

    x'(t) = Lambda x(t) + B u(t),    y(t) = Re(C x(t)) + D u(t)

A is block-diagonal with J equal blocks, each the normal part of HiPPO-LegS, diagonalised; or, in S5-PTD, HiPPO-LegS
itself with a small perturbation (arXiv 2310.01698). With `conj_sym` one of each conjugate pair of modes is stored and
y = 2 Re(C x) + D u.

Letters: H features, P stored states (half of `state_size` with `conj_sym`), L length. Parameters have the names and
shapes of the published code; a complex array has a trailing axis (re, im):

    Lambda_re, Lambda_im (P,)   B (P, H, 2)   C (H, P, 2)   D (H,)   log_step (P, 1), natural log of the step size

A layer with two directions has C1 and C2 for C, or one C of shape (H, 2 P, 2) with `C_init="complex_normal"`; all
else is shared by the directions.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, Integer, PRNGKeyArray

from s5jax.ssm import diagonal_system, diagonalize, discretize, hippo, parameters, scan

__all__ = [
    "SSM_PARAMS",
    "Lambda",
    "Options",
    "advance",
    "apply",
    "init",
    "initial_state",
    "recurrence",
    "step",
    "transfer_function",
]

SSM_PARAMS = ("Lambda_re", "Lambda_im", "B", "log_step")
"""The parameters that define the state's dynamics, and by default train with the SSM learning rate."""

Params = dict[str, Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What defines the layer besides its width. Hashable, so that it can be static under `jax.jit`."""

    state_size: int = 64
    """States in all, before conjugate halves are dropped (`ssm_size_base` of the published recipes)."""
    blocks: int = 1
    """J, equal blocks of A on the diagonal."""
    init: diagonalize.Method = "normal"
    """What each block starts as: HiPPO-LegS' `normal` part, or HiPPO-LegS perturbed, as described at
    `diagonalize.perturb_then_diagonalize`. `ptd` and `random` have modes that are no pairs: no `conj_sym`."""
    ptd_kappa: float = 0.0
    """Bound on the condition number of a perturbed block's eigenvectors; 0: the default there."""
    C_init: Literal["trunc_standard_normal", "lecun_normal", "complex_normal"] = "trunc_standard_normal"
    """How C starts, by the published names. Standard deviation of real and imaginary part each:
    1/sqrt(state_size) (`trunc_standard_normal`), 1/sqrt(state_size H) (`lecun_normal`), both then taken to the
    eigenbasis; sqrt(1/2), directly in the eigenbasis (`complex_normal`)."""
    D_init: parameters.FeedthroughInit = "normal"
    """D starts as a standard normal or, to be none at first, as zero."""
    dt_min: float = 0.001
    """Least initial step size; log_step starts log-uniform between the two."""
    dt_max: float = 0.1
    bidirectional: bool = False
    """Read the sequence in both directions. Such a layer has no recurrent mode."""
    conj_sym: bool = True
    """Store one of each conjugate pair of modes."""
    discretization: discretize.Method = "zoh"
    clip_eigs: bool = False
    """Hold the real part of Lambda at or below -1e-4."""
    scan_method: scan.Method = "auto"
    """How the recurrence is computed, see `scan`. All but `associative`, the published way, are one operation with the
    products around them, `diagonal_system.response`, as long as there is one step size and no state."""

    def __post_init__(self) -> None:
        for name in ("state_size", "blocks"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.state_size % self.blocks:
            raise ValueError(f"state_size {self.state_size} is not divisible by blocks {self.blocks}")
        if self.conj_sym and (self.state_size // self.blocks) % 2:
            raise ValueError(
                f"conj_sym needs blocks of even size, got state_size/blocks = {self.state_size}/{self.blocks}"
                f" = {self.state_size // self.blocks}"
            )
        if self.conj_sym and self.init in ("ptd", "random"):
            raise ValueError(f"init {self.init} has modes that are no conjugate pairs: conj_sym must be False")
        diagonalize.check_kappa(self.init, self.ptd_kappa)
        parameters.check_step_sizes(self.dt_min, self.dt_max)


def init(key: PRNGKeyArray, d_model: int, options: Options = Options()) -> Params:
    """Initial parameters, float32, for `d_model` features (arXiv 2208.04933, section 4.1 and appendix B.1)."""
    eigenvalues, V, V_inverse = _block(options)
    eigenvalues, V, V_inverse = diagonalize.blocks(eigenvalues, V, V_inverse, options.blocks)

    B_key, C_key, D_key, step_key = jax.random.split(key, 4)
    B = jax.nn.initializers.lecun_normal()(B_key, (options.state_size, d_model))
    return {
        "Lambda_re": jnp.asarray(eigenvalues.real, jnp.float32),
        "Lambda_im": jnp.asarray(eigenvalues.imag, jnp.float32),
        "B": parameters.pair(_matmul(V_inverse, B)),
        **_init_C(C_key, d_model, V, options),
        "D": parameters.init_feedthrough(D_key, d_model, options.D_init),
        "log_step": parameters.log_step(step_key, (len(eigenvalues), 1), options.dt_min, options.dt_max),
    }


def _block(
    options: Options,
) -> tuple[Complex[np.ndarray, " m"], Complex[np.ndarray, "n m"], Complex[np.ndarray, "m n"]]:
    """Eigenvalues, eigenvectors and rows of their inverse, of the modes of a block that are stored."""
    A, _, P = hippo.legs(options.state_size // options.blocks)
    if options.init != "normal":
        kappa = options.ptd_kappa or None
        perturbed = diagonalize.perturb_then_diagonalize(A, method=options.init, kappa=kappa)
        return perturbed.halves() if options.conj_sym else (perturbed.Lambda, perturbed.V, perturbed.inverse)
    eigenvalues, V = diagonalize.normal_part(A, P)
    if options.conj_sym:
        eigenvalues, V = diagonalize.conjugate_half(eigenvalues, V)
    return eigenvalues, V, V.conj().T


def _init_C(key: PRNGKeyArray, H: int, V: Complex[np.ndarray, "n P"], options: Options) -> Params:
    n, P = V.shape
    directions = 2 if options.bidirectional else 1
    if options.C_init == "complex_normal":
        return {"C": jax.random.normal(key, (H, directions * P, 2)) * jnp.float32(np.sqrt(0.5))}
    # Fan-in counts every axis but the last unless told otherwise: `lecun_normal` as published thus takes H n inputs.
    batch_axis = 0 if options.C_init == "trunc_standard_normal" else ()
    initializer = jax.nn.initializers.lecun_normal(batch_axis=batch_axis)
    drawn = [parameters.unpair(initializer(k, (H, n, 2))) for k in jax.random.split(key, directions)]
    in_eigenbasis = [parameters.pair(_matmul(C, V)) for C in drawn]
    return dict(zip(("C1", "C2") if options.bidirectional else ("C",), in_eigenbasis, strict=True))


def _matmul(x: Inexact[Array | np.ndarray, "a b"], y: Inexact[Array | np.ndarray, "b c"]) -> Complex[Array, "a c"]:
    """Complex product in full single precision on every device."""
    return jnp.matmul(jnp.asarray(x, jnp.complex64), jnp.asarray(y, jnp.complex64), precision="highest")


def Lambda(params: Params, options: Options = Options()) -> Complex[Array, " P"]:
    """The eigenvalues of A. The system is stable where all real parts are negative."""
    real = params["Lambda_re"]
    return jax.lax.complex(jnp.clip(real, None, -1e-4) if options.clip_eigs else real, params["Lambda_im"])


def _discrete(
    params: Params, options: Options, step_rescale: parameters.StepRescale
) -> tuple[Complex[Array, "*steps P"], Complex[Array, "*steps P"]]:
    """Lambda_bar and gamma; where `step_rescale` has axes, they stand in front."""
    Delta = parameters.step_sizes(params["log_step"], step_rescale)[..., 0]
    return discretize.discretize(
        parameters.with_rank(Lambda(params, options), Delta.ndim), Delta, options.discretization
    )


def _directions(params: Params) -> list[Float[Array, "H P 2"]]:
    """C of the forward direction and, if there is one, of the backward direction."""
    if "C1" in params:
        return [params["C1"], params["C2"]]
    return jnp.split(params["C"], params["C"].shape[1] // params["Lambda_re"].shape[0], axis=1)


def _read_in(
    params: Params, gamma: Complex[Array, "*steps P"], u: Float[Array, "*batch H"]
) -> Complex[Array, "*batch P"]:
    """gamma B u. One gamma for all steps scales B, P H numbers; one for each step scales what B u has become."""
    B = parameters.unpair(params["B"])
    if gamma.ndim == 1:
        B = gamma[:, None] * B
    Bu = jax.lax.complex(u @ B.real.T, u @ B.imag.T)
    return Bu if gamma.ndim == 1 else parameters.with_rank(gamma, Bu.ndim) * Bu


def _read_out(C: Float[Array, "H P 2"], x: Complex[Array, "*batch P"], options: Options) -> Float[Array, "*batch H"]:
    y = x.real @ C[..., 0].T - x.imag @ C[..., 1].T
    return 2 * y if options.conj_sym else y


def apply(
    params: Params,
    u: Float[Array, "*batch L H"],
    options: Options = Options(),
    *,
    lengths: Integer[Array, "*batch"] | None = None,
    initial_state: Complex[Array, "..."] | None = None,
    step_rescale: parameters.StepRescale = 1.0,
    return_state: bool = False,
) -> Float[Array, "*batch L H"] | tuple[Float[Array, "*batch L H"], Complex[Array, "*batch P"]]:
    """The layer on whole sequences.

    Args:
      params: as from `init`.
      u: inputs (..., L, H).
      options: those `params` were made with.
      lengths: (...), valid steps of each sequence. What stands after them changes no output before them, in
        neither direction, and no state. Default: every step is valid.
      initial_state: (P,) or (..., P), the state before the first step, as from `initial_state`, `step` or
        `return_state`; one direction only. Default: zero.
      step_rescale: factor on the step sizes, 2 for an input sampled at half the rate of training; or one for each
        step, (L,) or (..., L), for an input sampled irregularly.
      return_state: return the state after the last valid step too; one direction only.

    Returns:
      y (..., L, H), or (y, state) with `return_state`.

    Raises:
      ValueError: a state is asked of a layer with two directions.
    """
    readouts = _directions(params)
    with_state = return_state or initial_state is not None
    if with_state and len(readouts) == 2:
        raise ValueError("a layer with two directions has no state to start from or to return")
    mask = None if lengths is None else scan.valid_steps(lengths, u.shape[-2])
    u, step_rescale = scan.without_padding(u, lengths), scan.regular_in_padding(step_rescale, lengths)
    Lambda_bar, gamma = _discrete(params, options, step_rescale)
    method = scan.choose(options.scan_method)
    if gamma.ndim == 1 and not with_state and method != "associative":
        gamma = jax.lax.optimization_barrier(gamma)  # else it is computed anew for each element of the product
        b = diagonal_system.drive(gamma[:, None] * parameters.unpair(params["B"]), u)
        Cs = [parameters.unpair(2 * C if options.conj_sym else C) for C in readouts]
        return diagonal_system.response(Lambda_bar, b, Cs, method=method) + parameters.feedthrough(params, u)
    Bu = _read_in(params, gamma, u)
    # A padded input of zero is all that valid outputs need, as a backward scan meets the padding in state zero. Only a
    # state that is handed over must also be held through the padding, at the price of one multiplier per step.
    states, state = scan.scan(
        Lambda_bar, Bu, initial_state=initial_state, mask=mask if with_state else None, method=method
    )
    y = _read_out(readouts[0], states, options) + parameters.feedthrough(params, u)
    if len(readouts) == 2:
        backward, _ = scan.scan(Lambda_bar, Bu, reverse=True, method=method)
        y = y + _read_out(readouts[1], backward, options)
    return (y, state) if return_state else y


def initial_state(params: Params, batch_shape: tuple[int, ...] = ()) -> Complex[Array, "*batch P"]:
    """The zero state, (*batch_shape, P), complex64."""
    return jnp.zeros((*batch_shape, params["Lambda_re"].shape[0]), jnp.complex64)


def recurrence(
    params: Params, options: Options = Options(), *, step_rescale: parameters.StepRescale = 1.0
) -> dict[str, Array]:
    """What `advance` needs of the parameters: to be computed once for many samples.

    Args:
      step_rescale: factor on the step sizes, one for all or (...), one for each sequence.

    Raises:
      ValueError: the layer has two directions.
    """
    readouts = _directions(params)
    if len(readouts) == 2:
        raise ValueError("a layer with two directions has no recurrent mode")
    Lambda_bar, gamma = _discrete(params, options, step_rescale)
    B, C = parameters.unpair(params["B"]), (2 if options.conj_sym else 1) * readouts[0]
    arrays = {"Lambda_bar": Lambda_bar, "D": params["D"]}
    if gamma.ndim == 1:
        B = gamma[:, None] * B
    else:
        arrays["gamma"] = gamma
    return arrays | {
        "B": jnp.concatenate([B.real, B.imag]).T,
        "C": jnp.concatenate([C[..., 0], -C[..., 1]], axis=1).T,
    }


def advance(
    recurrence: dict[str, Array], state: Complex[Array, "*batch P"], u_k: Float[Array, "*batch H"]
) -> tuple[Complex[Array, "*batch P"], Float[Array, "*batch H"]]:
    """One sample of what `apply` computes: (state, u_k) to (next state, y_k)."""
    Bu = jax.lax.complex(*jnp.split(u_k @ recurrence["B"], 2, axis=-1))
    if "gamma" in recurrence:
        Bu = parameters.with_rank(recurrence["gamma"], Bu.ndim) * Bu
    state = parameters.with_rank(recurrence["Lambda_bar"], state.ndim) * state + Bu
    y = jnp.concatenate([state.real, state.imag], axis=-1) @ recurrence["C"]
    return state, y + parameters.feedthrough(recurrence, u_k)


def step(
    params: Params,
    state: Complex[Array, "*batch P"],
    u_k: Float[Array, "*batch H"],
    options: Options = Options(),
    *,
    step_rescale: parameters.StepRescale = 1.0,
) -> tuple[Complex[Array, "*batch P"], Float[Array, "*batch H"]]:
    """`advance` with the `recurrence` of the parameters, where there are errors described."""
    return advance(recurrence(params, options, step_rescale=step_rescale), state, u_k)


def transfer_function(
    params: Params, s: Complex[Array, "*frequencies"], options: Options = Options()
) -> Complex[Array, "*frequencies H H"]:
    """G(s) = C (s I - Lambda)^-1 B + D of the continuous-time system, (output, input) on the last two axes.

    With `conj_sym` the conjugate modes are counted in, so that this is the transfer function of the real system. A
    backward direction adds its own, C2 (-s I - Lambda)^-1 B. The step sizes have no part in it.

    Args:
      s: complex frequencies, in the unit of Lambda (radians/time); the step sizes measure that time.
    """
    pole, B = Lambda(params, options), parameters.unpair(params["B"])
    Cs = [parameters.unpair(C) for C in _directions(params)]
    if options.conj_sym:
        pole, B = jnp.concatenate([pole, pole.conj()]), jnp.concatenate([B, B.conj()])
        Cs = [jnp.concatenate([C, C.conj()], axis=1) for C in Cs]
    s = s[..., None]
    G = jnp.broadcast_to(jnp.diag(params["D"]).astype(B.dtype), (*s.shape[:-1], *2 * params["D"].shape))
    for sign, C in zip((1, -1), Cs, strict=False):
        resolvent = 1 / (sign * s - parameters.with_rank(pole, s.ndim))
        G = G + jnp.einsum("hp,...p,pi->...hi", C, resolvent, B)
    return G
