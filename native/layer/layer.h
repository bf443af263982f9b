// The layer worker: reads and fills one layer, confined to it; docs/layer-protocol.md.
#pragma once

// Serves one connection and ends the process with it. `directory` is the layer's `u`, or -1 for a host that names the folder it is in. Every other
// descriptor is closed; call it in a child that has nothing to lose.
_Noreturn void layer_worker(int connection, int directory);
