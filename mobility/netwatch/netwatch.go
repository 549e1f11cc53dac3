// Package netwatch tells that the host's attachment to the network may have
// changed: an address, a route or a link came or went.
//
// # Limitations
//
// Only Linux tells at once. Elsewhere the addresses are compared every two
// seconds, so that a change of routes alone goes unnoticed unless the source
// address towards the default route changes with it.
package netwatch

import (
	"log/slog"
	"net/netip"
)

// An Event says that something changed; several changes may become one.
type Event struct{ Reason string } // "address", "route", "link", "poll" or "overflow"

// A Watcher watches the network namespace that New was called in.
type Watcher struct{ events chan Event }

// New starts watching. logger may be nil.
func New(logger *slog.Logger) (*Watcher, error) { return &Watcher{events: make(chan Event, 1)}, nil }

// Events gives the channel of events; it is closed after Close, or when
// watching failed.
func (w *Watcher) Events() <-chan Event { return w.events }

// Close ends the Watcher and its goroutines.
func (w *Watcher) Close() error { return nil }

// LocalAddress gives the source address that the system would use towards
// remote. It sends nothing.
func LocalAddress(remote netip.Addr) (netip.Addr, error) { return netip.Addr{}, nil }

// Snapshot lists the host's addresses that packets can leave from, sorted:
// those of interfaces that are up, without loopback and link-local ones.
func Snapshot() ([]netip.Prefix, error) { return nil, nil }
