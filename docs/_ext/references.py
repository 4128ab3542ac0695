"""What must be there: whatever a text refers to in smalti. Other libraries have pages on other machines."""

from typing import Any


def on_missing_reference(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Leaves a name as it is that belongs to another library or stands in a signature; others are a warning."""
    from sphinx import addnodes

    root, dot, _ = node.get("reftarget", "").partition(".")
    if dot and node.get("refdomain") == "py" and root != "smalti":
        return content
    above = node.parent
    while above is not None:
        if isinstance(above, addnodes.desc_signature):
            return content
        above = above.parent
    return None
