"""Import Feast as it is: to check the types of arguments, it rewrites its own source at every start.

That took 2.6 of 4.3 seconds. Typeguard, which does it, leaves it out by itself only where Python leaves out assertions.
"""

from typing import Any

import typeguard


def _as_it_is(target: Any = None, **_: Any) -> Any:  # noqa: ANN401 (whatever is decorated)
    return _as_it_is if target is None else target


_checked = typeguard.typechecked
typeguard.typechecked = _as_it_is
try:
    import feast  # noqa: F401
finally:
    typeguard.typechecked = _checked
