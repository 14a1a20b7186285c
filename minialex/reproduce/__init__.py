"""Every experiment of the paper as one command: `minialex reproduce NAME`, `minialex reproduce all`, `minialex report`."""
