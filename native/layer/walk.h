#pragma once
#include "wire.h"

// From now on only this name at the top of the layer is looked at, and what is below it; the rest is not even read. Empty: everything is.
void walk_only(struct span name);
// Tells every path of the layer and remembers them for walk_changes.
void walk_all(void);
// Tells what differs from what is remembered, and remembers that. Ends the session when nothing is.
void walk_changes(int processors);
