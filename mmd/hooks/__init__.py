"""Programs that units run beside an engine. They use the standard library only, and import each other by path.

systemd starts each of them as `python -I -S /path/of/hook.py`. A hook is on the path of every swap, so it does without
modules that take milliseconds to import, such as json, http.client, pathlib and typing.
"""
