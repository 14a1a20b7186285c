"""The verbs of the command line, a file each: `add(verbs)` declares its flags, `main(options)` does the work.

What a verb needs beyond its flags is imported inside `main`, so that `--help` answers at once.  cli.py lists them in the order of --help.
"""
