"""Writes docs/cli.md: runs example calls of the command on DynamoDB Local (`make docs-cli`)."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from ragcrawl_dynamo import CrawlRun, DynamoDBBackend, Page, PageVersion, Site
from ragcrawl_dynamo.testing import drop_tables, local_config, run_dynamodb_local

ROOT = Path(__file__).parent.parent
SITE = "docs"
HOST = "https://docs.example.org"
COLUMNS = "120"
PORT = 8000

TEXTS = {
    "/": ["# Example\n\nA library for examples.\n", "# Example\n\nA library for examples, and for tests.\n"],
    "/install": ["# Install\n\n    pip install example\n"],
    "/guide": ["# Guide\n\nFirst install it.\n"],
}

# The sections of the page: a heading, a sentence below it, and the calls.
WALK = (
    (
        "The tables",
        "Only `init` and `ragcrawl crawl` create tables. All others fail if tables are missing.",
        ["init", "status"],
    ),
    (
        "Sites, pages and versions",
        "Pass a page's URL in any form: URLs are normalized before they are compared.",
        [
            "sites",
            f"pages {SITE}",
            f"page show {SITE} {HOST}/#top",
            f"versions {SITE} {HOST}/",
            f"diff {SITE} {HOST}/",
            f"page show {SITE} {HOST}/install --content",
        ],
    ),
    (
        "Runs",
        "`run show SITE` takes the latest run. `--watch 2` refreshes it every two seconds until it ends.",
        [
            f"runs {SITE}",
            f"run show {SITE} monday --watch 2",
            f"frontier failed {SITE} monday",
            f"frontier requeue {SITE} monday",
            f"frontier stats {SITE} --json",
            f"run cancel {SITE} monday --dry-run",
        ],
    ),
    (
        "Export and import",
        "An interrupted export or import resumes. `FILE.parquet` is a folder of Parquet files.",
        [f"export {SITE} docs.jsonl", "import docs.jsonl"],
    ),
    (
        "Clean-up",
        "Without `--yes` these commands ask first. Without a yes, the exit code is 1.",
        [
            f"prune {SITE} --keep-last 1 --dry-run",
            f"prune {SITE} --keep-last 1 --yes",
            f"gc {SITE} --dry-run",
            f"delete-site {SITE} --dry-run",
        ],
    ),
    (
        "Errors",
        "An error is one sentence on stderr, with exit code 1.",
        [f"page show {SITE} {HOST}/nowhere", "pages doc", "--table-prefix typo_ sites"],
    ),
)


async def fill(endpoint: str) -> None:
    """Saves a small site with a run that is not finished."""
    config = local_config(endpoint, table_prefix="ragcrawl_", frontier_max_attempts=1)
    async with DynamoDBBackend(config) as backend:
        await backend.save_site(Site(site_id=SITE, name="Example's documentation", seeds=[HOST + "/"]))
        await backend.save_run(CrawlRun(run_id="monday", site_id=SITE, status="running"))
        for path, texts in TEXTS.items():
            for n, text in enumerate(texts):
                page_id = path.strip("/") or "home"
                version = PageVersion(
                    version_id=f"{page_id}-{n + 1}",
                    page_id=page_id,
                    site_id=SITE,
                    run_id="monday",
                    url=HOST + path,
                    status_code=200,
                    content_hash=f"{page_id} {n}",
                    title=text[2:].split("\n")[0],
                    markdown=text,
                )
                await backend.commit_page(
                    Page(page_id=page_id, site_id=SITE, url=HOST + path, status_code=200), version
                )
        frontier = backend.frontier(SITE, "monday")
        await frontier.add([f"{HOST}/{i}" for i in range(40)] + ["https://blog.example.org/1"])
        claims = await frontier.claim(5)
        await frontier.complete(claims[:3])
        await frontier.fail(claims[3], "503 Service Unavailable")


def transcript(call: str, endpoint: str, folder: str) -> str:
    """Runs a call, and returns it with its output as in a terminal."""
    env = {
        **os.environ,
        "RAGCRAWL_DYNAMO_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "COLUMNS": COLUMNS,
    }
    process = subprocess.Popen(  # noqa: S603 # the calls above
        [sys.executable, "-m", "ragcrawl_dynamo", *shlex.split(call)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        cwd=folder,
    )
    try:
        output, _ = process.communicate(timeout=15 if "--watch" in call else 60)
    except subprocess.TimeoutExpired:
        # --watch runs until the run is finished; a user presses Ctrl-C.
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate()
    lines = [line.rstrip() for line in output.strip("\n").splitlines()]
    return "\n".join([f"$ ragcrawl-dynamo {call}", *lines])


def main(folder: Path) -> None:
    """Runs all calls, and writes the page."""
    text = [
        "# The command line",
        "",
        "`make docs-cli` wrote this page by running these calls. Options before the command, or environment",
        "variables, select the tables, the endpoint and the AWS profile: here `RAGCRAWL_DYNAMO_ENDPOINT_URL`",
        "is set. `ragcrawl-dynamo --help` lists all options.",
    ]
    with run_dynamodb_local(ROOT / ".dynamodb-local", PORT) as endpoint:
        for title, sentence, calls in WALK:
            blocks = []
            for call in calls:
                blocks.append(transcript(call, endpoint, str(folder)))
                if call == "init":
                    asyncio.run(fill(endpoint))
            text += ["", f"## {title}", "", sentence, "", "```console", "\n\n".join(blocks), "```"]
        asyncio.run(drop_tables(local_config(endpoint, table_prefix="ragcrawl_")))
    (ROOT / "docs" / "cli.md").write_text("\n".join(text) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
