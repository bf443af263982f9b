#pragma once

// Tells every path of the layer and remembers them for walk_changes.
void walk_all(void);
// Tells what differs from what is remembered, and remembers that. Ends the session when nothing is.
void walk_changes(int processors);
