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

Writes bode_layerI_featureF.png and .csv into the run's directory. HiPPO's curve is that of HiPPO-LegS with as many
states and the readout that comes closest; the misfit says how close.
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--workdir", type=pathlib.Path, required=True, metavar="DIR", help="the run's directory")
    parser.add_argument("--layer", type=int, default=0, metavar="I", help="which residual block's SSM (default: 0)")
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
    workdir, name = arguments.workdir, f"layers_{arguments.layer}"
    config = read_config(workdir)
    states.require(config, "transfer_function", "Lambda")
    trained = load(workdir, arguments.checkpoint)
    layers = states.ssm_layers(trained.state.params)
    if name not in layers:
        raise UserError(f"--layer: layers run from 0 to {len(layers) - 1}, got {arguments.layer}")
    try:
        result = transfer.bode(
            config.ssm.name,
            config.ssm.options,
            layers[name],
            states.ssm_layers(trained.start.params)[name],
            output=arguments.feature,
            input=arguments.input,
        )
    except ValueError as error:
        raise UserError(f"--feature, --input: {error}") from error
    to = "" if arguments.input is None else f"_input{arguments.input}"
    file = workdir / f"bode_layer{arguments.layer}_feature{arguments.feature}{to}"
    step = int(trained.state.step)
    transfer.plot_bode(
        result,
        file.with_suffix(".png"),
        f"{workdir.name}: {config.ssm.name}, {file.stem[5:].replace('_', ' ')}, step {step}",
    )
    transfer.write_bode(result, file.with_suffix(".csv"))
    gain, frequency = result.peak
    slow, fast = result.nyquist
    warning = states.report_unstable(config, trained.state.params)
    return "\n".join(
        [
            f"{config.ssm.name}, layer {arguments.layer}, {arguments.checkpoint} checkpoint, step {step}",
            f"largest |G|:        {gain:.4g} at {frequency:.4g} rad/time",
            f"closest HiPPO-LegS: misfit {result.misfit:.3g} of the response's norm",
            f"Nyquist frequency:  {slow:.4g}" + ("" if slow == fast else f" to {fast:.4g}") + " rad/time",
            *([f"warning: {warning}"] if warning else []),
            f"figure:  {file.with_suffix('.png')}",
            f"numbers: {file.with_suffix('.csv')}",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
