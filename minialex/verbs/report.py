"""minialex report: all results on one page."""

from __future__ import annotations

import argparse
from pathlib import Path

from ..flags import path
from ..spec import MiniAlexError


def main(options: argparse.Namespace) -> None:
    """Gather the results of experiments into one page."""
    from .. import files
    from ..reproduce import markdown
    from ..reproduce.page import page
    from ..reproduce.report import gather
    folder = Path(options.folder)
    out = Path(options.out or folder / "report.html")
    if not folder.is_dir():
        raise MiniAlexError(f"{folder}: there is no such folder; minialex reproduce all makes one with results in it")
    if not out.absolute().parent.is_dir():
        raise MiniAlexError(f"--out {out}: there is no folder {out.absolute().parent}; make it first, or name another")
    results = gather(folder)
    text = page(results, folder, publish=options.publish)
    if options.markdown:
        markdown.write(results, options.markdown)
    files.write(out, text)
    ran = sum(one.status != "not run" for one in results)
    print(f"{out}: {ran} of {len(results)} experiments have been run; {len(text) / 2**20:.1f} MiB")


def add(verbs) -> None:
    p = verbs.add_parser("report", help="all results on one page", description=main.__doc__)
    p.add_argument("folder", nargs="?", type=path, default="reproduction", metavar="FOLDER",
                   help="results of minialex reproduce (default: reproduction)")
    p.add_argument("--out", type=path, metavar="FILE", help="the page, HTML (default: report.html in FOLDER)")
    p.add_argument("--markdown", type=path, metavar="FILE", help="also put the table between the markers of this file (default: no file)")
    p.add_argument("--publish", action="store_true", help="leave out pictures of photographs that may not be passed on (default: all)")
    p.set_defaults(run=main)
