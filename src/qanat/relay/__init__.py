"""The relay: endpoints become plans, and the engine carries them out.

``planning`` turns a configuration into plans, ``difference`` compares two sets of them, ``engine``
owns the one engine of the process and ``relay`` puts them together. ``flow``, ``notice`` and
``stats`` are what the engine reports. Nothing here knows the command line.
"""

__all__: list[str] = []
