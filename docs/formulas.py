"""Formulas as MathML, which every browser shows by itself: Sphinx's own way would load a script from the internet."""

from typing import Any

from docutils.nodes import SkipNode
from docutils.utils.math.latex2mathml import tex2mathml


def setup(app: Any) -> dict[str, bool]:  # noqa: ANN401 (Sphinx's)
    """Make docutils' own converter the one for HTML."""
    app.add_html_math_renderer("mathml", inline_renderers=(_inline, None), block_renderers=(_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}


def _inline(writer: Any, node: Any) -> None:  # noqa: ANN401 (Sphinx's)
    writer.body.append(tex2mathml(node.astext()))
    raise SkipNode


def _block(writer: Any, node: Any) -> None:  # noqa: ANN401 (Sphinx's)
    writer.body.append(f"<p>{tex2mathml(node.astext(), as_block=True)}</p>")
    raise SkipNode
