package system

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"

	"github.com/godwit-net/godwit/transports"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// Whatever this system's setting is, the bytes arrive and the end of the
// handshake is noticed.
func TestEarlyData(t *testing.T) {
	n := New()
	ln, err := n.ListenTCP(t.Context(), netip.AddrPortFrom(loopback, 0))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, connected, err := transports.DialEarly(t.Context(), n, loopback, transports.AddrPort(ln.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if a := transports.AddrPort(c.LocalAddr()); a.Addr() != loopback || a.Port() == 0 {
		t.Errorf("local address before the handshake: %v", a)
	}
	const first = "the first flight"
	if _, err := io.WriteString(c, first); err != nil {
		t.Fatal(err)
	}
	s, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := connected(); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, len(first))
	if _, err := io.ReadFull(s, b); err != nil || string(b) != first {
		t.Errorf("got %q, %v", b, err)
	}
	if h, ok := s.(transports.Handshaking); ok && h.Handshaking() {
		t.Error("the handshake is not over")
	}
}

func TestEarlyRefused(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := transports.AddrPort(ln.Addr())
	ln.Close()
	c, connected, err := transports.DialEarly(t.Context(), New(), loopback, at)
	if err == nil {
		defer c.Close()
		if _, err = io.WriteString(c, "x"); err == nil {
			err = connected()
		}
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v", err)
	}
}

// Close ends the wait for a peer that never answers.
func TestEarlyClosed(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// TEST-NET-1, which answers nothing; from the loopback it goes nowhere.
	c, connected, err := transports.DialEarly(ctx, New(), loopback, netip.MustParseAddrPort("192.0.2.1:9"))
	if err != nil {
		return // this system knows at once
	}
	done := make(chan error, 1)
	go func() {
		_, err := io.WriteString(c, "x")
		if err == nil {
			err = connected()
		}
		done <- err
	}()
	c.Close()
	if err := <-done; err == nil {
		t.Error("connected to nobody")
	}
}
