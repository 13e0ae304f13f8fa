"""The formats of configuration texts, one module for each, all of the same shape.

``parse(text)`` gives plain dictionaries, lists and scalars or raises
:class:`~qanat.config.formats.syntax.SyntaxProblems`, whatever the text is. ``places(text)`` says
where in a text that parses each key stands; it is asked only when there is something to say.
"""

from __future__ import annotations

__all__: list[str] = []
