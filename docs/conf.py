"""How the guides are built: `make docs`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "Holdfast"
author = "the Holdfast authors"
html_title = "Holdfast"
extensions = ["myst_parser", "sphinxcontrib.typer", "formulas", "reference"]
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build"]
html_theme = "furo"
html_math_renderer = "mathml"
html_copy_source = False
html_show_copyright = False
html_theme_options = {"source_repository": "", "footer_icons": []}
nitpicky = True
