"""Prefect's API in a process that ends when its standard input does: `python -m flows.orchestration.api_process PORT`.

The input is a pipe from the command that runs flows. The system closes it when that process ends, however it ends.
"""

from __future__ import annotations

import os
import sys
import threading

import uvicorn
from prefect.server.api.server import create_app


def main() -> None:
    """Serve on loopback."""
    app = create_app(ephemeral=True, final=True)
    config = uvicorn.Config(app, host="127.0.0.1", port=int(sys.argv[1]), log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def stop_with_input() -> None:
        while os.read(0, 1):  # not by sys.stdin, whose lock would still be held when the process ends
            pass
        server.should_exit = True

    threading.Thread(target=stop_with_input, daemon=True).start()
    server.run()


if __name__ == "__main__":
    main()
