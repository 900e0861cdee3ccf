"""Draws the Bode plot of a layer of a run beside HiPPO's, and writes it down as numbers."""

import argparse
import pathlib
import sys

from s5jax.analysis import transfer
from s5jax.training import state as states
from s5jax.training.config import UserError
from s5jax.training.trained import load
from s5jax.training.workdir import read_config

EXAMPLES = """examples:
  python scripts/bode.py --workdir=runs/digits
  python scripts/bode.py --workdir=runs/digits --layer=3 --feature=17 --input=4
  python scripts/bode.py --workdir=runs/digits --layer=all

Writes bode_layerI_featureF.png and .csv into the run's directory, or bode_all_layers_featureF.png, with the magnitudes
only, and .csv. HiPPO's curve is that of HiPPO-LegS with as many states and the readout that comes closest; the misfit
says how close.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, metavar="DIR", help="the run's directory")
    parser.add_argument(
        "--layer", default="0", metavar="I", help="which residual block's SSM (default: 0), or all: each of them"
    )
    parser.add_argument("--feature", type=int, default=0, metavar="F", help="the output looked at (default: 0)")
    parser.add_argument("--input", type=int, metavar="F", help="the input driven (default: the same feature)")
    parser.add_argument(
        "--checkpoint",
        choices=("best", "latest"),
        default="best",
        help="best: of the highest validation accuracy so far (default); latest: the newest",
    )
    arguments = parser.parse_args()
    try:
        print(bode(arguments))
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def bode(arguments: argparse.Namespace) -> str:
    workdir = arguments.workdir
    config = read_config(workdir)
    states.require(config, "transfer_function", "Lambda")
    trained = load(workdir, arguments.checkpoint)
    layers = states.ssm_layers(trained.state.params)
    numbers = [str(number) for number in range(len(layers))]
    if arguments.layer not in (*numbers, "all"):
        raise UserError(f"--layer: layers run from 0 to {numbers[-1]}, or all; got {arguments.layer}")
    chosen = numbers if arguments.layer == "all" else [arguments.layer]
    start = states.ssm_layers(trained.start.params)
    try:
        results = [
            transfer.bode(
                config.ssm.name,
                config.ssm.options,
                layers[f"layers_{number}"],
                start[f"layers_{number}"],
                output=arguments.feature,
                input=arguments.input,
            )
            for number in chosen
        ]
    except ValueError as error:
        raise UserError(f"--feature, --input: {error}") from error
    which = "all_layers" if arguments.layer == "all" else f"layer{arguments.layer}"
    to = "" if arguments.input is None else f"_input{arguments.input}"
    file = workdir / f"bode_{which}_feature{arguments.feature}{to}"
    step = int(trained.state.step)
    title = f"{workdir.name}: {config.ssm.name}, {file.name[5:].replace('_', ' ')}, step {step}"
    header = f"{arguments.checkpoint} checkpoint, step {step}"
    if arguments.layer == "all":
        transfer.plot_magnitudes(results, file.with_suffix(".png"), title)
        transfer.write_bodes(results, file.with_suffix(".csv"))
        lines = [f"{config.ssm.name}, all layers, {header}"]
        for number, result in enumerate(results):
            lines.append(f"layer {number}: " + "; ".join(f"{name} {value}" for name, value in describe(result).items()))
    else:
        transfer.plot_bode(results[0], file.with_suffix(".png"), title)
        transfer.write_bode(results[0], file.with_suffix(".csv"))
        lines = [f"{config.ssm.name}, layer {arguments.layer}, {header}"]
        lines += [f"{name + ':':19} {value}" for name, value in describe(results[0]).items()]
    warning = states.report_unstable(config, trained.state.params)
    return "\n".join(
        [
            *lines,
            *([f"warning: {warning}"] if warning else []),
            f"figure:  {file.with_suffix('.png')}",
            f"numbers: {file.with_suffix('.csv')}",
        ]
    )


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
