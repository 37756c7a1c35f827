"""Serves a web page on which a trained model segments images that visitors upload."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
from pathlib import Path

from accelerate import Accelerator
from transformers.utils.logging import disable_progress_bar

from maskformer.data.nearest import Parser
from maskformer.training.model_folder import load_model_folder

EXAMPLE = "python scripts/demo.py --model outputs/demo/best --port 7860"
MADE_BY_DEMO = Path("outputs/demo/best")


def parse_arguments() -> tuple[argparse.ArgumentParser, argparse.Namespace]:
    """The command line."""
    parser = Parser(__doc__, EXAMPLE)
    parser.add_argument("--model", type=Path, default=MADE_BY_DEMO, help=f"folder of a model; default {MADE_BY_DEMO}")
    parser.add_argument("--examples", type=Path, help="folder of example images; by default, generated scenes")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at; 0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=7860)
    parser.add_argument("--seconds", type=float, default=60, help="longest time that an image may wait for its answer")
    return parser, parser.parse_args()


def main() -> None:
    parser, arguments = parse_arguments()
    disable_progress_bar()  # of transformers, which shows one for every file
    if arguments.model == MADE_BY_DEMO and not arguments.model.exists():
        parser.error(f"{MADE_BY_DEMO} does not exist; run `make demo`, which trains it, or name a folder with --model")
    if not 0 < arguments.seconds < 3600:
        parser.error(f"--seconds is {arguments.seconds:g}; it must lie between 0 and 3600")
    if not 0 < arguments.port < 65536:
        parser.error(f"--port is {arguments.port}; ports are 1 to 65535")
    try:
        from maskformer.demo.examples import folder_examples, generated_examples
        from maskformer.demo.network import Network
        from maskformer.demo.server import serve
    except ModuleNotFoundError as error:
        parser.error(f"the demo needs gradio: pip install 'maskformer-universal[web]' ({error})")
    print(f"loading {arguments.model} ...", flush=True)
    # As servers are stopped: the folder is to be deleted then too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with tempfile.TemporaryDirectory(prefix="maskformer_demo_") as folder:
        folder = Path(folder).resolve()
        try:
            model, image_processor = load_model_folder(arguments.model)
            model.to(Accelerator().device)
            examples = folder_examples(arguments.examples, folder) if arguments.examples else generated_examples(folder)
            network = Network(model, image_processor, arguments.seconds)
            page = serve(network, examples, folder, arguments.host, arguments.port)
            print(f"serving {arguments.model} at {page.local_url}; stop with Ctrl+C", flush=True)
        except (ValueError, OSError) as error:
            parser.error(str(error))
        page.block_thread()


if __name__ == "__main__":
    main()
