"""The JSON Schema of configuration files, for editors and for programs that write them.

``python -m qanat.config.schema docs/schema.json`` writes it; a test holds the file in the
repository against the models.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from qanat.config.descriptions import describe_field
from qanat.config.models import TABLES, Config

__all__ = ["as_text", "schema"]

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def schema() -> dict[str, Any]:
    """A fresh schema. Keys that files may have beyond it are answered with a warning."""
    made = Config.model_json_schema()
    definitions = made.get("$defs", {})
    tables = {model.__name__: definitions.get(model.__name__, made) for model in TABLES}
    for model in TABLES:
        table = tables[model.__name__]
        for name, field in table["properties"].items():
            # Titles made of names say nothing that the names do not say.
            field.pop("title", None)
            if field.get("default", ...) is None:
                del field["default"]
            field["description"] = describe_field(model, name)
        table["description"] = " ".join(table["description"].split())
    made["title"] = "qanat configuration"
    return {"$schema": DIALECT, **made}


def as_text() -> str:
    """The schema as it is published, ended by a newline."""
    return json.dumps(schema(), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(as_text(), encoding="utf-8")
