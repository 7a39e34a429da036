"""The verb that starts the operator's desk."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from time import perf_counter

from llmft.cli.arguments import Verbs, verb_parser
from llmft.cli.records import desk_arguments


def add_serve(verbs: Verbs) -> None:
    """The verb ``serve``."""
    verb = verb_parser(
        verbs,
        "serve",
        "start the operator's desk: API, console and database, on this machine unless told otherwise",
        "  llmft serve export/demo-llama/demo-llama-Q4_0.gguf\n"
        "  llmft serve                                  (the model that `llmft models use` took into service)\n"
        "  llmft serve --backend http://127.0.0.1:8080/v1 --backend-model triage\n"
        "  llmft serve model.gguf --host 0.0.0.0 --tls-cert cert.pem --tls-key key.pem",
    )
    verb.add_argument("file", nargs="?", type=Path, help="the GGUF (default: the model in service)")
    verb.add_argument("--backend", metavar="URL", help="a server that speaks OpenAI's API, instead of a file; ends in /v1")
    verb.add_argument("--backend-model", default="default", metavar="NAME", help="the model's name there")
    verb.add_argument("--host", default="127.0.0.1", help="address to listen on (default 127.0.0.1; others need keys)")
    verb.add_argument("--port", type=int, default=8550, help="port to listen on (default 8550)")
    verb.add_argument("--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM")
    verb.add_argument("--tls-key", type=Path, metavar="FILE", help="its key, PEM")
    verb.add_argument("--context", type=int, default=2048, metavar="TOKENS", help="of one call and its answer (default 2048)")
    verb.add_argument("--slots", type=int, default=8, metavar="N", help="answers written at once (default 8)")
    verb.add_argument("--threads", type=int, help="CPU threads of the model (default: half of the cores, one for a tiny file)")
    verb.add_argument("--system", help="system message (default: the recipes' own)")
    verb.add_argument(
        "--abstain-below", type=float, default=0.5, metavar="P", help="confidence under which a human decides (default 0.5)"
    )
    verb.add_argument("--rate", type=int, default=1200, metavar="N", help="requests a minute of one key (default 1200)")
    verb.add_argument("--no-live", action="store_true", help="no triage after each turn; only when it is asked for")
    verb.add_argument(
        "--reference", type=Path, metavar="FILE", help="report.json of the training set, against which drift is measured"
    )
    verb.add_argument("--despite-gate", action="store_true", help="serve a file that failed `llmft gate` all the same")
    desk_arguments(verb)
    verb.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> None:
    begun = perf_counter()
    from llmft.privacy import keep_private

    keep_private()
    from llmft.gate_result import require_gate
    from llmft.serve.running import model_in_service, serve
    from llmft.serve.settings import SYSTEM, ServeSettings

    file, follows = arguments.file, arguments.file is None and arguments.backend is None
    if file is not None:
        require_gate(file, despite=arguments.despite_gate)
    if follows:
        file = model_in_service(arguments.database, arguments.desk)
    serve(
        ServeSettings(
            model=file,
            follows=follows,
            backend_url=arguments.backend,
            backend_model=arguments.backend_model,
            backend_key=os.environ.get("LLMFT_BACKEND_KEY"),
            database=arguments.database,
            folder=arguments.desk,
            host=arguments.host,
            port=arguments.port,
            tls_cert=arguments.tls_cert,
            tls_key=arguments.tls_key,
            context_tokens=arguments.context,
            slots=arguments.slots,
            threads=arguments.threads,
            system=SYSTEM if arguments.system is None else arguments.system,
            abstain_below=arguments.abstain_below,
            requests_per_minute=arguments.rate,
            live=not arguments.no_live,
            drift_reference=arguments.reference,
        ),
        begun,
    )
