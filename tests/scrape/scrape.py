#!/usr/bin/env python3
"""Has a Prometheus server scrape the example server, and asks it for what it has read (METRIC-2).

    tests/scrape/scrape.py target/debug/examples/server
"""
import contextlib
import json
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

WANTED = ["xmpp_transports_accepted_total", "xmpp_sessions", "xmpp_login_step_seconds_bucket", "xmpp_faults_total"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(port, query):
    url = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return json.load(answer)["data"]["result"]
    except OSError:
        return []


def main(server):
    xmpp, metrics, prometheus = free_port(), free_port(), free_port()
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder, "prometheus.yml")
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: xmpp, static_configs: [{{targets: ['127.0.0.1:{metrics}']}}]}}\n"
        )
        commands = [
            [server, "--listen", f"127.0.0.1:{xmpp}", "--metrics", f"127.0.0.1:{metrics}", "--any-account", "p", "--log", "off"],
            ["prometheus", f"--config.file={config}", f"--web.listen-address=127.0.0.1:{prometheus}",
             f"--storage.tsdb.path={folder}/data", "--log.level=error"],
        ]
        running = [subprocess.Popen(command, stdout=subprocess.DEVNULL) for command in commands]
        try:
            for _ in range(60):
                time.sleep(0.5)
                # Somebody comes and goes, so that there is something to read. It may still be starting.
                with contextlib.suppress(ConnectionRefusedError):
                    socket.create_connection(("127.0.0.1", xmpp)).close()
                found = {name: ask(prometheus, name) for name in WANTED}
                if all(found.values()):
                    print(f"scraped: {', '.join(f'{name} ({len(rows)})' for name, rows in found.items())}")
                    break
            else:
                sys.exit(f"missing: {[name for name, rows in found.items() if not rows]}, up: {ask(prometheus, 'up')}")
        finally:
            for process in running:
                process.terminate()
            for process in running:
                process.wait()


main(sys.argv[1])
