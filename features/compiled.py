"""How hot loops are compiled."""

from typing import Any

from numba import njit

# Without reference counts (`_nrt`, a flag that Numba does not document): such functions allocate nothing
# and hand the same arrays down, and counting who holds them was half of a fold.
lean: Any = njit(cache=True, nogil=True, _nrt=False)  # type: ignore[call-overload]
