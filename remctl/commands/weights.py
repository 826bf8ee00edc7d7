"""`remctl weights fetch | status`."""

from __future__ import annotations

import typer

app = typer.Typer(help="Fetch or check the perceptual loss' pretrained weights (64 MB, once per user).")


@app.command()
def fetch() -> None:
    """Download, verify and keep the LPIPS weights, unless they are there."""
    from remctl.progress import alive
    from remctl.weights import fetch_lpips

    with alive("fetching the LPIPS weights"):
        fetch_lpips()


@app.command()
def status() -> None:
    """Say whether the LPIPS weights are there and intact; exit status 1 if not."""
    from remctl.weights import lpips_status

    found = lpips_status()
    print(found.line)
    if found.state != "ready":
        print(f"fix: {found.fix}")
        raise typer.Exit(1)
