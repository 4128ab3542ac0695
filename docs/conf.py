"""How Sphinx builds the documentation site: ``make docs``."""

import sys
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]

from smalti import __version__  # noqa: E402

project = "smalti"
author = "the authors of smalti"
version = release = __version__
html_title = f"smalti {version}"

extensions = ["sphinx.ext.autodoc", "myst_parser", "sphinx_copybutton", "_ext"]
exclude_patterns = ["_build", "_ext"]
source_suffix = {".rst": "restructuredtext", ".md": "markdown"}
myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]

smartquotes = False  # would make one dash of the two before an option

# whatever a text refers to in smalti must be there (see _ext/references.py)
nitpicky = True
nitpick_ignore_regex = [
    ("py:exc", r"[A-Z]\w+"),  # exceptions of other libraries, after Raises
    ("py:.*", r".*\[.*"),  # what an alias of a type is made of
]

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 100
toc_object_entries = False
add_module_names = False

html_theme = "furo"
html_static_path = ["_static"]
html_css_files = ["smalti.css"]
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False
html_theme_options = {"navigation_with_keys": True}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
