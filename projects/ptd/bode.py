"""Draws the Bode plot of a run's SSMs beside HiPPO's, and writes its numbers."""

import argparse
import sys

from flax import nnx

from projects.ptd import transfer
from s5jax.evaluators.stability import mixers_of, report_unstable
from s5jax.train import launch
from s5jax.train.build import build_model
from s5jax.train.config import UserError
from s5jax.train.trained import lacking, load_run
from s5jax.train.workdir import read_config, read_json

EXAMPLES = """examples:
  python projects/ptd/bode.py --workdir=runs/digits
  python projects/ptd/bode.py --workdir=runs/digits --layer=3 --feature=17 --input=4
  python projects/ptd/bode.py --workdir=runs/digits --layer=all

Writes bode_layerI_featureF.png and .csv into the run's directory, or bode_all_layers_featureF.png, with the magnitudes
only, and .csv. HiPPO's curve is that of HiPPO-LegS with as many states and the readout that comes closest; the misfit
is the distance that remains. Layers are residual blocks; `all` leaves out those whose mixer has no transfer function.
"""


def main() -> int:
    parser = launch.make_parser(__doc__, EXAMPLES)
    launch.add_workdir(parser)
    parser.add_argument(
        "--layer", default="0", metavar="I", help="the residual block whose SSM is drawn (default: 0), or all of them"
    )
    parser.add_argument("--feature", type=int, default=0, metavar="F", help="the output looked at (default: 0)")
    parser.add_argument("--input", type=int, metavar="F", help="the input driven (default: the same feature)")
    launch.add_checkpoint(parser)
    return launch.call(bode, parser.parse_args())


def bode(arguments: argparse.Namespace) -> str:
    workdir = arguments.workdir
    config = read_config(workdir)
    depth, pattern = config.model.depth, config.model.pattern
    if arguments.layer not in (*map(str, range(depth)), "all"):
        raise UserError(f"--layer: layers run from 0 to {depth - 1}, or all; got {arguments.layer}")
    without = lacking(config, "transfer_function", "eigenvalues", "time_step")
    faults = ", ".join(dict.fromkeys(without.values()))
    chosen = [int(arguments.layer)] if arguments.layer != "all" else [i for i in range(depth) if i not in without]
    if not chosen or chosen[0] in without:
        raise UserError(f"--layer={arguments.layer}: {faults}, which this needs")
    trained = load_run(workdir, arguments.checkpoint)
    untrained = build_model(config, **read_json(workdir / "run.json")["model"])
    after, before = (nnx.to_pure_dict(nnx.state(model, nnx.Param)) for model in (trained.model, untrained))
    layers, starts = mixers_of(config, after), mixers_of(config, before)
    results = {}
    for number in chosen:
        mixer, options, params = layers[f"layers_{number}"]
        start = starts[f"layers_{number}"][2]
        try:
            results[number] = transfer.bode(
                mixer, options, params, start, output=arguments.feature, input=arguments.input
            )
        except ValueError as error:
            raise UserError(f"--feature, --input: {error}") from error
    which = "all_layers" if arguments.layer == "all" else f"layer{arguments.layer}"
    to = "" if arguments.input is None else f"_input{arguments.input}"
    file = workdir / f"bode_{which}_feature{arguments.feature}{to}"
    step = trained.step
    header = f"{arguments.checkpoint} checkpoint, step {step}"
    names = "+".join(dict.fromkeys(pattern[number % len(pattern)] for number in chosen))
    title = f"{workdir.name}: {names}, {file.name[5:].replace('_', ' ')}, step {step}"
    if arguments.layer == "all":
        transfer.plot_magnitudes(results, file.with_suffix(".png"), title)
        lines = [f"{names}, all layers, {header}"]
        for number, result in results.items():
            lines.append(f"layer {number}: " + "; ".join(f"{name} {value}" for name, value in describe(result).items()))
        lines += [f"left out: {faults}"] if without else []
    else:
        (result,) = results.values()
        transfer.plot_bode(result, file.with_suffix(".png"), title)
        lines = [f"{names}, layer {arguments.layer}, {header}"]
        lines += [f"{name + ':':19} {value}" for name, value in describe(result).items()]
    transfer.write_bode(results, file.with_suffix(".csv"), numbered=arguments.layer == "all")
    warning = report_unstable(config, after)
    lines += [f"warning: {warning}"] if warning else []
    return "\n".join([*lines, f"figure:  {file.with_suffix('.png')}", f"numbers: {file.with_suffix('.csv')}"])


def describe(result: transfer.Bode) -> dict[str, str]:
    gain, frequency = result.peak
    slow, fast = result.nyquist
    return {
        "largest |G|": f"{gain:.4g} at {frequency:.4g} rad/time",
        "closest HiPPO-LegS": f"misfit {result.misfit:.3g} of the response's norm",
        "Nyquist frequency": f"{slow:.4g}" + ("" if slow == fast else f" to {fast:.4g}") + " rad/time",
    }


if __name__ == "__main__":
    sys.exit(main())
