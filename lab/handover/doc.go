// Package handover proves the whole of godwit in virtual time: client and
// server, the inner TCP included, in one bubble with the laboratory's network
// between them. What a move costs is stated in round trips of the new path and
// is the same on every machine.
//
// It has tests only. They need the build tag virtualtime and gVisor as
// lab/virtualtime prepares it; `make test-virtual` runs them.
package handover
