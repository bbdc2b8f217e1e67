"""What the machine did beside the mesh while something was measured, and from when on that spoils a figure."""

from __future__ import annotations

#: A repetition is disturbed from this share on: of the machine's capacity that others took, or of the time under
#: memory pressure. What others take a mesh cannot have, so a tenth moves its capacity by a tenth, which is less than
#: the finest step of the loads; a desktop that is left alone takes a twentieth or less.
DISTURBED_FROM = 0.1
