"""What every package needs: records, specs, events, errors, settings, sessions, paths, redaction, files and logging.

The modules import only each other. What a single package needs belongs there. The shim and the relay import some of
these modules, so this file stays free of code.
"""
