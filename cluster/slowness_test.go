package cluster

// Slowness is for tests from outside.
const Slowness = slowness
